package stdout

import (
	"testing"

	"sockwatch/agent/plugin/plugintest"
)

func TestConformance(t *testing.T) {
	o := Defaults()
	plugintest.Pusher(t, Plugin, &o)
}
