package tcplisten

import (
	"testing"

	"sockwatch/agent/plugin/plugintest"
)

func TestConformance(t *testing.T) {
	start(t, task{Listen: []listenTask{{Addr: "127.0.0.1"}}})
	options := Example()
	plugintest.Input(t, Plugin, &options)
}
