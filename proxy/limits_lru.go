package proxy

import (
	"container/list"
	"iter"
)

// lru is a map that forgets what was not used for longest when it is full. It
// is not safe for concurrent use.
type lru[K comparable, V any] struct {
	limit int
	order *list.List // of entry, latest used first
	items map[K]*list.Element
}

type entry[K comparable, V any] struct {
	key   K
	value V
}

func newLRU[K comparable, V any](limit int) *lru[K, V] {
	return &lru[K, V]{limit: limit, order: list.New(), items: make(map[K]*list.Element)}
}

// get returns the zero value for what is not there.
func (l *lru[K, V]) get(key K) (value V) {
	e, ok := l.items[key]
	if !ok {
		return value
	}
	l.order.MoveToFront(e)
	return e.Value.(entry[K, V]).value
}

func (l *lru[K, V]) put(key K, value V) {
	l.remove(key)
	l.items[key] = l.order.PushFront(entry[K, V]{key, value})
	if len(l.items) > l.limit {
		l.remove(l.order.Back().Value.(entry[K, V]).key)
	}
}

// values gives all of them, without using them.
func (l *lru[K, V]) values() iter.Seq[V] {
	return func(yield func(V) bool) {
		for _, e := range l.items {
			if !yield(e.Value.(entry[K, V]).value) {
				return
			}
		}
	}
}

func (l *lru[K, V]) remove(key K) {
	if e, ok := l.items[key]; ok {
		l.order.Remove(e)
		delete(l.items, key)
	}
}
