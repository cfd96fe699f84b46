package agent

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

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
		if diff := cmp.Diff(want, h.input(name).state(name), cmpopts.EquateErrors()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestSourcesNamesTagsOfDefinitionAndConfiguration(t *testing.T) {
	input := func(tags []string) *liveInput {
		return &liveInput{
			Input:  &Input{Plugin: plugin.Plugin{Tags: tags}, Options: InputOptions{Tags: map[string]string{"host": "h", "site": "s"}}},
			health: &inputHealth{},
		}
	}
	v := &view{run: &run{inputs: map[string]*liveInput{"undeclared": input(nil), "declared": input([]string{"port", "address", "host"})}}}
	want := []plugin.SourceState{{Name: "declared", Tags: []string{"address", "host", "port", "site"}}, {Name: "undeclared"}}
	if diff := cmp.Diff(want, v.Sources()); diff != "" {
		t.Errorf("Sources (-want +got):\n%s", diff)
	}
}
