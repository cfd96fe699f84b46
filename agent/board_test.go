package agent

import (
	"errors"
	"testing"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

func TestSourcesTellsFailedFromEmpty(t *testing.T) {
	h := newHealth("test", func() {})
	failure := errors.New("no such file")
	h.input("failed").failed(0, failure)
	h.input("empty").succeeded(0, &metric.Batch{}, false)
	want := map[string]plugin.SourceState{
		"failed":  {Name: "failed", Gathered: true, Err: failure},
		"empty":   {Name: "empty", Gathered: true},
		"pending": {Name: "pending"},
	}
	for name, want := range want {
		got := h.input(name).state(name)
		if got.Since.IsZero() == got.Gathered {
			t.Errorf("%s: since %v", name, got.Since)
		}
		got.Since = time.Time{}
		if got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}
