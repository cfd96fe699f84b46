package main

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Dropped records are reported in the format of the configuration in force, even if only
// errors are logged.
func TestDroppedLogRecordsAreReported(t *testing.T) {
	out := &gatedWriter{}
	s := newLogSwitch(out)
	s.buffer()
	s.set("error", "json")
	log := slog.New(s).With("plugin", "outputs.file")
	out.gate.Lock()
	const half = maxLogBytes / 2
	for range 5 { // of which one fits
		log.Error(strings.Repeat("x", half))
	}
	out.gate.Unlock()
	if !s.flush(waitLimit) {
		t.Fatal("flush reports that not all is written")
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var got struct {
		Level, Msg string
		Records    int
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &got); err != nil {
		t.Fatal(err)
	}
	want := got
	want.Level, want.Msg, want.Records = "ERROR", "log reader too slow, records dropped", 4
	if diff := cmp.Diff(want, got); diff != "" || len(lines) != 2 {
		t.Errorf("%d lines, the last (-want +got):\n%s", len(lines), diff)
	}
}
