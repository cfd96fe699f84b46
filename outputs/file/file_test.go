package file

import (
	"path/filepath"
	"testing"

	"sockwatch/agent/plugin/plugintest"
)

func TestConformance(t *testing.T) {
	o := Defaults()
	o.Path = filepath.Join(t.TempDir(), "points.jsonl")
	plugintest.Pusher(t, Plugin, &o)
}
