package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"

	koanfyaml "github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
	"gopkg.in/yaml.v3"
)

// envPrefix begins the environment variables that override settings; envLevel
// stands between the levels of a key, since keys have underscores themselves.
const (
	envPrefix = "MIGPROXY_"
	envLevel  = "__"
)

// Load reads the settings from a YAML file, overrides them by the MIGPROXY_
// variables of environ (as os.Environ gives them) and checks all of it. An
// error is an *Errors with everything that is wrong.
func Load(path string, environ []string) (*Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return nil, errorOrNil([]Problem{{File: path, Text: fmt.Sprintf("cannot be read (%v); name the settings file with --config", err)}})
	}
	s := &settings{file: path, lines: map[string]int{}, written: map[string]bool{},
		variables: map[string]string{}, bad: map[string]bool{}}
	if !s.readFile(text) {
		return nil, errorOrNil(s.problems)
	}
	env := s.readEnvironment(environ)
	cfg, err := s.decode(text, env)
	if err != nil {
		return nil, err
	}
	s.complete(cfg)
	s.validate(cfg)
	if err := errorOrNil(s.problems); err != nil {
		return nil, err
	}
	return cfg, nil
}

// settings is one reading of the settings: what was found where, and what is
// wrong with it.
type settings struct {
	file      string
	lines     map[string]int    // by key
	written   map[string]bool   // keys with a value that is not empty
	variables map[string]string // by key, where one overrides the file
	bad       map[string]bool   // keys whose value is reported already
	problems  []Problem
}

// readFile checks the file's keys and values against the structure. It
// reports false when the file cannot be made sense of any further.
func (s *settings) readFile(text []byte) bool {
	d := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	if err := d.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		s.problems = append(s.problems, Problem{File: s.file, Text: "is not YAML: " + strings.TrimPrefix(err.Error(), "yaml: ")})
		return false
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		s.problems = append(s.problems, Problem{File: s.file, Text: "holds more than one YAML document; keep everything in the first"})
		return false
	}
	w := walker{settings: s, readable: true}
	if len(doc.Content) > 0 {
		w.node(doc.Content[0], reflect.TypeFor[Config](), "")
	}
	return w.readable
}

// readEnvironment returns the settings that variables override, by key.
func (s *settings) readEnvironment(environ []string) map[string]any {
	values := map[string]any{}
	environ = slices.Clone(environ)
	slices.Sort(environ)
	for _, e := range environ {
		name, text, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, envPrefix) {
			continue
		}
		key, t, err := variableKey(name)
		if err != nil {
			s.problems = append(s.problems, Problem{Variable: name, Text: err.Error()})
			continue
		}
		s.variables[key] = name
		value, err := parseText(t, text)
		if err != nil {
			s.report(key, "%s", err)
			continue
		}
		values[key] = value
	}
	return values
}

// variableKey finds the setting that a variable names.
func variableKey(name string) (key string, t reflect.Type, err error) {
	t = reflect.TypeFor[Config]()
	for part := range strings.SplitSeq(strings.ToLower(strings.TrimPrefix(name, envPrefix)), envLevel) {
		if t.Kind() == reflect.Slice {
			break
		}
		if isScalar(t) {
			return "", nil, fmt.Errorf("%s has nothing below it; unset this variable", key)
		}
		f, ok := fieldByKey(t, part)
		if !ok {
			return "", nil, fmt.Errorf("there is no setting %s; %s", join(key, part), suggest(part, keysOf(t)))
		}
		key, t = join(key, part), f.Type
	}
	switch {
	case t.Kind() == reflect.Slice:
		return "", nil, fmt.Errorf("%s is a list, and lists cannot be set from the environment; write it in the file", key)
	case !isScalar(t):
		return "", nil, fmt.Errorf("%s is a section; name a setting in it, such as %s", key,
			strings.ToUpper(envPrefix+strings.ReplaceAll(key, ".", envLevel)+envLevel+keysOf(t)[0]))
	}
	return key, t, nil
}

// decode puts file, environment and defaults together. What is bad is left
// out, so that the rest can be checked too.
func (s *settings) decode(text []byte, env map[string]any) (*Config, error) {
	k := koanf.New(".")
	if err := k.Load(rawbytes.Provider(text), koanfyaml.Parser()); err != nil {
		return nil, errorOrNil([]Problem{{File: s.file, Text: "is not YAML: " + err.Error()}})
	}
	if err := k.Load(confmap.Provider(env, "."), nil); err != nil {
		return nil, fmt.Errorf("put the environment over %s: %w", s.file, err)
	}
	filled, _ := s.fill(k.Raw(), reflect.TypeFor[Config](), "").(map[string]any)
	k = koanf.New(".")
	if err := k.Load(confmap.Provider(filled, ""), nil); err != nil {
		return nil, fmt.Errorf("put the defaults under %s: %w", s.file, err)
	}
	cfg := new(Config)
	if err := k.Unmarshal("", cfg); err != nil {
		return nil, fmt.Errorf("read %s: %w", s.file, err)
	}
	return cfg, nil
}

// report notes what is wrong with a key, unless that key or what it is part of
// was reported before.
func (s *settings) report(key, format string, args ...any) {
	for k := key; k != ""; k = parent(k) {
		if s.bad[k] {
			return
		}
	}
	p := Problem{File: s.file, Key: key, Text: fmt.Sprintf(format, args...), Variable: s.variables[key]}
	for k := key; k != "" && p.Line == 0 && p.Variable == ""; k = parent(k) {
		p.Line = s.lines[k]
	}
	s.problems = append(s.problems, p)
	s.bad[key] = true
}

// parent is the key above a key: a.b[0] is in a.b, which is in a.
func parent(key string) string {
	return key[:max(strings.LastIndexAny(key, ".["), 0)]
}

func join(key, part string) string {
	if key == "" {
		return part
	}
	return key + "." + part
}
