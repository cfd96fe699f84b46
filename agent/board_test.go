package agent

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

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
		if diff := cmp.Diff(want, got, cmpopts.EquateErrors()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestSourcesNamesTagsOfDefinitionAndConfiguration(t *testing.T) {
	r := newRig(t)
	s := newSupervisor(r.agent, nil)
	s.running.inputs = map[string]*runningInput{}
	for name, tags := range map[string][]string{"undeclared": nil, "declared": {"port", "address", "host"}} {
		in, err := s.newInput(r.agent, &Input{Name: name, Plugin: plugin.Plugin{Tags: tags}, Options: InputOptions{Tags: map[string]string{"host": "h", "site": "s"}}})
		if err != nil {
			t.Fatal(err)
		}
		s.running.inputs[name] = in
	}
	want := []plugin.SourceState{{Name: "declared", Tags: []string{"address", "host", "port", "site"}}, {Name: "undeclared"}}
	if diff := cmp.Diff(want, s.sources()); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
}
