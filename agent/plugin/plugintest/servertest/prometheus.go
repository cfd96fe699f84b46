//go:build unix

package servertest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Prometheus starts Debian's Prometheus, with more arguments, and a configuration that
// scrapes nothing: "" or YAML.
func Prometheus(t testing.TB, config string, args ...string) *Server {
	t.Helper()
	return startPrometheus(t, "prometheus", config, args)
}

// Prometheus3 starts Prometheus 3.16, likewise. Its program is $SOCKWATCH_PROMETHEUS3, or
// where .ci/run installs it.
func Prometheus3(t testing.TB, config string, args ...string) *Server {
	t.Helper()
	return startPrometheus(t, cached(t, "SOCKWATCH_PROMETHEUS3", "prometheus-3.16.0", "prometheus"), config, args)
}

func startPrometheus(t testing.TB, program, config string, args []string) *Server {
	t.Helper()
	dir, port := t.TempDir(), FreePort(t)
	path := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s := New(t, program, port, "/-/ready", append([]string{
		"--config.file=" + path, "--storage.tsdb.path=" + filepath.Join(dir, "data"), fmt.Sprintf("--web.listen-address=127.0.0.1:%d", port),
	}, args...)...)
	s.Start()
	return s
}
