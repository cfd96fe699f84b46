package agent

import (
	"errors"
	"testing"

	"sockwatch/agent/plugin"
)

func TestSourcesTellsFailedFromEmpty(t *testing.T) {
	h := newHealth("test")
	failure := errors.New("no such file")
	h.input("failed").failed(0, failure)
	h.input("empty").end(nil, 0, 0)
	want := map[string]plugin.SourceState{
		"failed":  {Name: "failed", Gathered: true, Err: failure},
		"empty":   {Name: "empty", Gathered: true},
		"pending": {Name: "pending"},
	}
	for name, want := range want {
		if got := h.input(name).state(name); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}
