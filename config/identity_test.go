package config_test

import (
	"testing"

	"migproxy/config"
)

func TestTemplateExpand(t *testing.T) {
	// A login name that looks like a template is not one.
	id := config.Identity{Login: "{local}@Example.COM", Local: "{local}", Domain: "example.com"}
	for template, want := range map[config.Template]string{
		"":                   "{local}@example.com",
		"{address}":          "{local}@example.com",
		"{local}":            "{local}",
		"{login}":            "{local}@Example.COM",
		"{domain}\\{local}":  "example.com\\{local}",
		"mail-{local}-{none": "mail-{local}-{none",
	} {
		if got := template.Expand(id); got != want {
			t.Errorf("%q: got %q, want %q", template, got, want)
		}
	}
}
