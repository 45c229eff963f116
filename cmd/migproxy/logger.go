package main

import (
	"fmt"
	"io"
	"os"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"migproxy/config"
)

// newLogger writes where the settings say; close ends it. Lines go out at
// once, so that a crash loses none.
func newLogger(cfg config.Log, stderr io.Writer) (log *zap.Logger, closeLog func(), err error) {
	level, err := zapcore.ParseLevel(cfg.Level)
	if err != nil {
		return nil, nil, fmt.Errorf("log.level: %w; write debug, info, warn or error", err)
	}
	ec := zap.NewProductionEncoderConfig()
	ec.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	ec.EncodeDuration = zapcore.StringDurationEncoder
	encoder := zapcore.NewJSONEncoder(ec)
	if cfg.Format != "json" {
		ec.EncodeTime = zapcore.ISO8601TimeEncoder
		ec.EncodeLevel = zapcore.CapitalLevelEncoder
		encoder = zapcore.NewConsoleEncoder(ec)
	}
	out, closeLog := zapcore.AddSync(stderr), func() {}
	if cfg.File != "" {
		f, err := os.OpenFile(cfg.File, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, nil, fmt.Errorf("log.file: %w; its directory must exist, and this user must be able to write it", err)
		}
		out, closeLog = f, func() { _ = f.Close() }
	}
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(out), level)), closeLog, nil
}
