package remotewrite

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"sockwatch/agent/plugin/plugintest"
)

func TestConformance(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	defer server.Close()
	o := Defaults()
	o.URLs = []string{server.URL}
	plugintest.Pusher(t, Plugin, &o)
}
