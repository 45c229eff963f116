package config

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// walker compares the nodes of the file with the structure of the settings.
// koanf keeps no positions, and an error without its line is half an error.
type walker struct {
	*settings
	readable bool // false once koanf would not read the file either
}

func (w *walker) node(n *yaml.Node, t reflect.Type, key string) {
	n = resolve(n)
	if n.ShortTag() == "!!null" {
		return // the same as leaving it out
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[Addresses]() && n.Kind == yaml.ScalarNode:
		w.scalar(n, t.Elem(), key)
	case isScalar(t):
		w.scalar(n, t, key)
	case t.Kind() == reflect.Struct:
		if n.Kind != yaml.MappingNode {
			w.at(n, key, "must hold settings of its own; write one a line below it: %s", strings.Join(keysOf(t), ", "))
			w.readable = w.readable && key != ""
			return
		}
		w.mapping(n, t, key, map[string]int{})
	default:
		if n.Kind != yaml.SequenceNode {
			w.at(n, key, "must be a list; write [ ] around it, or - before each entry")
			return
		}
		for i, e := range n.Content {
			k := fmt.Sprintf("%s[%d]", key, i)
			w.lines[k] = e.Line
			if resolve(e).ShortTag() == "!!null" {
				w.at(e, k, "is empty; fill it in or take the entry away")
				continue
			}
			w.node(e, t.Elem(), k)
		}
	}
}

// mapping checks the keys of one mapping; seen holds the line of each key.
func (w *walker) mapping(n *yaml.Node, t reflect.Type, key string, seen map[string]int) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		if name.ShortTag() == "!!merge" {
			w.merged(resolve(value), t, key)
			continue
		}
		k := join(key, name.Value)
		if name.Kind != yaml.ScalarNode || name.ShortTag() != "!!str" {
			w.at(name, key, "has a key that is not a word; known here: %s", strings.Join(keysOf(t), ", "))
			w.readable = false
			continue
		}
		if line, twice := seen[name.Value]; twice {
			w.at(name, k, "is there twice, first on line %d; take one away", line)
			w.readable = false
			continue
		}
		seen[name.Value] = name.Line
		f, ok := fieldByKey(t, name.Value)
		if !ok {
			w.at(name, k, "unknown key; %s", suggest(name.Value, keysOf(t)))
			if near := nearest(name.Value, keysOf(t)); near != "" {
				w.bad[join(key, near)] = true // most likely not missing
			}
			continue
		}
		w.lines[k] = name.Line
		w.node(value, f.Type, k)
	}
}

// merged checks what << brings in: one mapping, or a list of them.
func (w *walker) merged(n *yaml.Node, t reflect.Type, key string) {
	sources := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		sources = n.Content
	}
	for _, m := range sources {
		if m = resolve(m); m.Kind == yaml.MappingNode {
			w.mapping(m, t, key, map[string]int{})
		}
	}
}

func (w *walker) scalar(n *yaml.Node, t reflect.Type, key string) {
	if n.Kind != yaml.ScalarNode {
		w.at(n, key, "must be a single value, not a list or a section")
		return
	}
	tag := n.ShortTag()
	var err error
	switch {
	case t.Kind() == reflect.Bool && tag != "!!bool":
		err = errors.New("write true or false, without quotes")
	case t.Kind() == reflect.Int && tag != "!!int":
		err = errors.New("write a whole number, without quotes")
	case t.Kind() == reflect.String && len(valuesOf(t)) == 0 && tag != "!!str":
		err = errors.New("is not text to YAML; write it in quotes")
	case t.Kind() == reflect.Int:
		err = n.Decode(new(int))
		if err != nil {
			err = errors.New("is too large; write a smaller number")
		}
	default:
		_, err = parseText(t, n.Value)
	}
	if err != nil {
		w.at(n, key, "%s", err)
	}
	w.written[key] = n.Value != ""
}

// at reports a problem at a node's own line.
func (w *walker) at(n *yaml.Node, key, format string, args ...any) {
	w.problems = append(w.problems, Problem{File: w.file, Line: n.Line, Key: key, Text: fmt.Sprintf(format, args...)})
	w.bad[key] = true
}

// resolve follows aliases (*name) to what they stand for.
func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// isScalar reports whether a setting of this type is a single value.
func isScalar(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.String, reflect.Int, reflect.Bool:
		return true
	default:
		return reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
	}
}

// valuesOf lists the values of an enumeration; nil for other types.
func valuesOf(t reflect.Type) []string {
	if e, ok := reflect.Zero(t).Interface().(interface{ Values() []string }); ok {
		return e.Values()
	}
	return nil
}

// parseText reads one value. An empty one is the same as none.
func parseText(t reflect.Type, text string) (any, error) {
	if text == "" {
		return nil, nil
	}
	if u, ok := reflect.New(t).Interface().(encoding.TextUnmarshaler); ok {
		return text, u.UnmarshalText([]byte(text))
	}
	if values := valuesOf(t); values != nil {
		return text, known(text, values)
	}
	switch t.Kind() {
	case reflect.Bool:
		if text != "true" && text != "false" {
			return nil, errors.New("write true or false")
		}
		return text == "true", nil
	case reflect.Int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return nil, errors.New("write a whole number")
		}
		return n, nil
	default:
		return text, nil
	}
}

// fill returns a value of the file with the defaults of its type where nothing
// was written, and without what is bad.
func (s *settings) fill(v any, t reflect.Type, key string) any {
	if s.bad[key] {
		v = nil
	}
	if t.Kind() == reflect.Pointer {
		if v == nil {
			return nil
		}
		t = t.Elem()
	}
	switch {
	case isScalar(t):
		if b, ok := v.(bool); ok && t.Kind() == reflect.String {
			return strconv.FormatBool(b)
		}
		if v == "" {
			return nil
		}
		return v
	case t.Kind() == reflect.Struct:
		given, _ := v.(map[string]any)
		filled := map[string]any{}
		for _, f := range reflect.VisibleFields(t) {
			name := f.Tag.Get("koanf")
			value := s.fill(given[name], f.Type, join(key, name))
			if value == nil {
				value = defaultOf(f)
			}
			if value != nil {
				filled[name] = value
			}
		}
		return filled
	default:
		list, ok := v.([]any)
		if !ok {
			return v
		}
		filled := make([]any, 0, len(list))
		for i, e := range list {
			// A bad entry keeps its place: keys count entries.
			filled = append(filled, s.fill(e, t.Elem(), fmt.Sprintf("%s[%d]", key, i)))
		}
		return filled
	}
}

// defaultOf reads a field's default tag; lists have a comma between entries.
func defaultOf(f reflect.StructField) any {
	text, ok := f.Tag.Lookup("default")
	switch {
	case !ok:
		return nil
	case f.Type.Kind() == reflect.Slice:
		return strings.Split(text, ", ")
	default:
		return text
	}
}

// fieldByKey finds the field of a key as written in the file.
func fieldByKey(t reflect.Type, key string) (reflect.StructField, bool) {
	for _, f := range reflect.VisibleFields(t) {
		if f.Tag.Get("koanf") == key {
			return f, true
		}
	}
	return reflect.StructField{}, false
}

// keysOf lists the keys of a section, in the order of the documentation.
func keysOf(t reflect.Type) []string {
	var keys []string
	for _, f := range reflect.VisibleFields(t) {
		keys = append(keys, f.Tag.Get("koanf"))
	}
	return keys
}
