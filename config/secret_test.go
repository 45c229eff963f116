package config_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"gopkg.in/yaml.v3"

	"migproxy/config"
)

// Whatever a Secret is printed with and whatever it is a part of, the password
// does not come out.
func TestSecretIsNeverPrinted(t *testing.T) {
	const password = "hunter2"
	type exported struct{ Password config.Secret }
	type unexported struct{ password config.Secret }
	s := config.NewSecret(password)
	values := map[string]any{
		"itself": s, "pointer": &s, "exported": exported{s}, "unexported": unexported{s}, "pointer to a structure": &unexported{s},
		"slice": []config.Secret{s}, "map": map[string]config.Secret{"a": s}, "interface": any(&exported{s}),
	}
	for name, v := range values {
		var out []string
		for verb := 'A'; verb <= 'z'; verb++ {
			for _, flags := range []string{"", "+", "#", " ", "-20", "020", ".3"} {
				out = append(out, fmt.Sprintf("%"+flags+string(verb), v))
			}
		}
		if b, err := json.Marshal(v); err != nil {
			t.Errorf("%s: JSON: %v", name, err)
		} else {
			out = append(out, string(b))
		}
		if b, err := yaml.Marshal(v); err != nil {
			t.Errorf("%s: YAML: %v", name, err)
		} else {
			out = append(out, string(b))
		}
		var buf bytes.Buffer
		_ = gob.NewEncoder(&buf).Encode(v) // some of these have nothing to encode
		slog.New(slog.NewJSONHandler(&buf, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&buf, nil)).Info("x", "v", v)
		for _, encoder := range []zapcore.Encoder{
			zapcore.NewJSONEncoder(zap.NewDevelopmentEncoderConfig()), zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig()),
		} {
			log := zap.New(zapcore.NewCore(encoder, zapcore.AddSync(&buf), zap.DebugLevel))
			log.Info("x", zap.Any("v", v), zap.Reflect("r", v), zap.Error(errors.New(fmt.Sprint(v))))
			log.Sugar().Infow("x", "v", v)
			log.Sugar().Infof("%v %d", v, v)
		}
		out = append(out, buf.String())
		hex := fmt.Sprintf("%x", password)
		for _, text := range out {
			lower := strings.ToLower(text)
			if strings.Contains(lower, password) || strings.Contains(lower, hex) || strings.Contains(text, "104 117 110") {
				t.Errorf("%s: printed as %q", name, text)
			}
		}
	}
}

func TestSecretKeepsEveryByte(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	s := config.NewSecret(all)
	all[0] = 'x' // the caller's bytes are his own
	if got := s.Reveal(); len(got) != 256 || got[0] != 0 || got[255] != 255 {
		t.Errorf("got %q", got)
	}
	if s.IsZero() || !(config.Secret{}).IsZero() || (config.Secret{}).Reveal() != "" || !config.NewSecret("").IsZero() {
		t.Error("IsZero is wrong")
	}
	if fmt.Sprint(config.Secret{}) != "***" {
		t.Error("an empty password shows that it is empty")
	}
}
