// Package migproxy_test holds the rules that concern the repository as a whole.
package migproxy_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// mayImport says which rooms a room may import, directly or not: imports go
// down only, and proxy and migrator meet in the store alone.
var mayImport = map[string][]string{
	"config":       {},
	"upstream":     {"config"},
	"store":        {"config"},
	"provision":    {"config"},
	"aliasresolve": {"config"},
	"proxy":        {"upstream", "store", "provision", "aliasresolve", "config"},
	"migrator":     {"upstream", "store", "provision", "aliasresolve", "config"},
	"admin":        {"proxy", "migrator", "upstream", "store", "provision", "aliasresolve", "config"},
	"cmd":          {"demo", "admin", "proxy", "migrator", "upstream", "store", "provision", "aliasresolve", "config"},
	"demo":         {"admin", "proxy", "migrator", "upstream", "store", "provision", "aliasresolve", "config"},
	"deploy":       {},
	"e2e":          {},
}

// goPackage is what go list tells of a package.
type goPackage struct {
	ImportPath string
	Imports    []string
}

// packages lists the packages of this module, tests left out.
func packages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Imports", "./...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []goPackage
	d := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// room is the first element of a path within the module.
func room(path string) string {
	path, _, _ = strings.Cut(strings.TrimPrefix(path, "migproxy/"), "/")
	return path
}

// Since every import of every package is looked at, what a room imports
// through another is held to the rule as well.
func TestImportsGoDown(t *testing.T) {
	all := packages(t)
	if len(all) < 6 {
		t.Fatalf("go list found %d packages only", len(all))
	}
	for _, p := range all {
		if p.ImportPath == "migproxy" {
			continue // these tests
		}
		from := room(p.ImportPath)
		allowed, known := mayImport[from]
		if !known {
			t.Errorf("%s is in no room of the house; add its room here and in docs/design.md", p.ImportPath)
			continue
		}
		for _, imported := range p.Imports {
			if !strings.HasPrefix(imported, "migproxy/") {
				continue
			}
			if to := room(imported); to != from && !slices.Contains(allowed, to) {
				t.Errorf("%s imports %s: %s may import only %v", p.ImportPath, imported, from, allowed)
			}
		}
	}
}

// mayImport itself has no way from proxy to migrator or back, nor upwards.
func TestHouseHasNoCircle(t *testing.T) {
	for from, rooms := range mayImport {
		for _, to := range rooms {
			for _, further := range mayImport[to] {
				if further == from || !slices.Contains(rooms, further) {
					t.Errorf("%s imports %s, which may import %s", from, to, further)
				}
			}
		}
	}
}
