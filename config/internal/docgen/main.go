// Command docgen writes the reference of the settings from the doc, default
// and example tags of their structures:
//
//	go run ./config/internal/docgen docs/configuration.md
package main

import (
	"bytes"
	"encoding"
	"fmt"
	"os"
	"reflect"
	"strings"

	"migproxy/config"
)

const introduction = `# Settings

Generated from the source by ` + "`make generate`" + `; change the tags there, not this file.

One YAML file, named with ` + "`--config`" + `. An unknown key is an error, and so is a value that cannot be meant; all errors are
reported at once, each with its file, line and key. An empty value is the same as leaving the key out.

**Environment.** A variable overrides the file: ` + "`MIGPROXY_`" + ` and the key in capitals, two underscores between its levels, as in
` + "`MIGPROXY_LIMITS__PER_ADDRESS=20`" + `. An unknown variable with this prefix is an error. Lists, and what is in them, cannot be set
so. (Kubernetes sets such variables for a service named migproxy: name it otherwise, or turn enableServiceLinks off.) No setting holds a password: passwords are in files of their own, which the settings name.

**Durations** are a number and a unit (` + "`30s`, `5m`, `12h`" + `), with whole days before them if need be (` + "`90d`, `1d12h`" + `).
**Addresses** are ` + "`host:port`" + `; IPv6 in brackets, ` + "`[::1]:143`" + `; in quotes where YAML would not take them for text.
**Networks** are prefixes (` + "`192.0.2.0/24`" + `) or single addresses. **Domains** are compared without regard to case.

A whole example is [deploy/migproxy.yaml](../deploy/migproxy.yaml).
`

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: docgen FILE")
		os.Exit(2)
	}
	if err := os.WriteFile(os.Args[1], reference(), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// reference is the whole document.
func reference() []byte {
	b := bytes.NewBufferString(introduction)
	b.WriteString("\n## At the top\n")
	section(b, reflect.TypeFor[config.Config](), "", map[reflect.Type]string{})
	return b.Bytes()
}

// section writes the table of one structure, then those of the structures in
// it; seen holds where a structure was described before.
func section(b *bytes.Buffer, t reflect.Type, key string, seen map[reflect.Type]string) {
	seen[t] = key
	const head = "\n| key | what is written | default | |\n|---|---|---|---|\n"
	rows := ""
	type child struct {
		t   reflect.Type
		key string
		doc string
	}
	var children []child
	for _, f := range reflect.VisibleFields(t) {
		name, doc := f.Tag.Get("koanf"), f.Tag.Get("doc")
		below, list := f.Type, ""
		if below.Kind() == reflect.Slice && !isText(below.Elem()) {
			below, list = below.Elem(), "[]"
		}
		if below.Kind() == reflect.Pointer {
			below = below.Elem()
		}
		if below.Kind() == reflect.Struct && !isText(below) {
			children = append(children, child{below, join(key, name) + list, doc})
			continue
		}
		if example := f.Tag.Get("example"); example != "" {
			doc += " Example: `" + example + "`."
		}
		rows += fmt.Sprintf("| `%s` | %s | %s | %s |\n", join(key, name), written(f.Type), code(f.Tag.Get("default")), strings.ReplaceAll(doc, "|", `\|`))
	}
	if rows != "" {
		b.WriteString(head + rows)
	}
	for _, c := range children {
		fmt.Fprintf(b, "\n## `%s`\n\n%s\n", c.key, c.doc)
		if before, ok := seen[c.t]; ok {
			fmt.Fprintf(b, "\nThe same keys as in `%s`.\n", before)
			continue
		}
		section(b, c.t, c.key, seen)
	}
}

// written says what a value looks like.
func written(t reflect.Type) string {
	if e, ok := reflect.Zero(t).Interface().(interface{ Values() []string }); ok {
		return "`" + strings.Join(e.Values(), "`, `") + "`"
	}
	switch t {
	case reflect.TypeFor[config.Address]():
		return "address"
	case reflect.TypeFor[config.Addresses]():
		return "address, or a list of them"
	case reflect.TypeFor[config.Duration]():
		return "duration"
	case reflect.TypeFor[config.Network]():
		return "network"
	}
	switch t.Kind() {
	case reflect.Slice:
		return "list of " + written(t.Elem())
	case reflect.Bool:
		return "`true`, `false`"
	case reflect.Int:
		return "whole number"
	default:
		return "text"
	}
}

// isText reports whether a type is read from one piece of text.
func isText(t reflect.Type) bool {
	return t.Kind() == reflect.String || reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}
