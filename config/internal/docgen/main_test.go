package main

import (
	"bytes"
	"os"
	"reflect"
	"testing"

	"migproxy/config"
)

func TestReferenceIsNotStale(t *testing.T) {
	kept, err := os.ReadFile("../../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, reference()) {
		t.Error("docs/configuration.md is stale; run make generate")
	}
}

func TestEverySettingIsDocumented(t *testing.T) {
	var walk func(t2 reflect.Type, key string)
	walk = func(t2 reflect.Type, key string) {
		for t2.Kind() == reflect.Pointer || t2.Kind() == reflect.Slice {
			t2 = t2.Elem()
		}
		if t2.Kind() != reflect.Struct || isText(t2) {
			return
		}
		for _, f := range reflect.VisibleFields(t2) {
			name := f.Tag.Get("koanf")
			if name == "" || f.Tag.Get("doc") == "" {
				t.Errorf("%s%s has no koanf or no doc tag", key, f.Name)
			}
			walk(f.Type, key+name+".")
		}
	}
	walk(reflect.TypeFor[config.Config](), "")
}
