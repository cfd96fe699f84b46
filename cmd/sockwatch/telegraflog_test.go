package main

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTelegrafReadsTheLevelOfEachLine(t *testing.T) {
	var out strings.Builder
	s := newLogSwitch(&out)
	s.format = telegrafFormat
	s.set("debug", "json") // the configured format does not matter
	log := slog.New(s)
	log.Debug("details")
	log.With("plugin", "inputs.x").Info("started", "n", 2)
	log.Warn("line one\nline two", "error", errors.New("a\nb"))
	log.WithGroup("g").Error("level is kept", "level", "high", "msg", "m")
	want := `D! details
I! started plugin=inputs.x n=2
W! line one\x0aline two error="a\nb"
E! level is kept g.level=high g.msg=m
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	out.Reset()
	s.set("warn", "text")
	log.Info("below the level")
	if out.String() != "" {
		t.Errorf("logged %q", out.String())
	}
}

// Telegraf's scanner fails at a line of 64 KiB.
func TestLongLogLinesAreCut(t *testing.T) {
	var out strings.Builder
	long := strings.Repeat("é", 1<<16)
	slog.New(newTelegrafHandler(&out, nil)).Error("x" + long)
	errorLines{&out}.Write([]byte("y" + long + "\n"))
	for line := range strings.Lines(out.String()) {
		if len(line) > maxTelegrafLine+len("…\n") || !strings.HasSuffix(line, "é…\n") || !strings.HasPrefix(line, "E! ") {
			t.Errorf("a line of %d bytes: %s…%s", len(line), line[:8], line[len(line)-8:])
		}
	}
	if n := strings.Count(out.String(), "\n"); n != 2 {
		t.Errorf("%d lines", n)
	}
}
