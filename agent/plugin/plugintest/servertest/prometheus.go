//go:build unix

package servertest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
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

// Prometheus3 starts Prometheus 3.16, likewise.
func Prometheus3(t testing.TB, config string, args ...string) *Server {
	t.Helper()
	return startPrometheus(t, Prometheus3Program(t), config, args)
}

// Prometheus3Program returns the path of Prometheus 3.16, $SOCKWATCH_PROMETHEUS3 or where
// .ci/run installs it, whether or not it is installed.
func Prometheus3Program(t testing.TB) string {
	t.Helper()
	return cached(t, "SOCKWATCH_PROMETHEUS3", "prometheus-3.16.0", "prometheus")
}

// ScrapeAtOnce is an argument of Prometheus 3. Without it, the first scrape is after 5 s.
const ScrapeAtOnce = "--scrape.discovery-reload-interval=100ms"

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

// A Series is a series in an answer of the query API of Prometheus, which VictoriaMetrics has,
// too. A value is a time in seconds, and text.
type Series struct {
	Metric map[string]string
	Value  [2]any   // of a query at one time
	Values [][2]any // of a query of a range, or of samples
}

// Query asks the query API, "query" or "query_range", with names and values of parameters in
// turn. An error ends the test.
func (s *Server) Query(t testing.TB, api string, parameters ...string) []Series {
	t.Helper()
	if s.flush != "" {
		s.Get(t, s.flush)
	}
	// VictoriaMetrics otherwise leaves out the last 30 seconds.
	body := s.Get(t, "/api/v1/"+api, append([]string{"nocache", "1"}, parameters...)...)
	var answer struct{ Data struct{ Result []Series } }
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return answer.Data.Result
}

// Get returns the body of a GET, with names and values of parameters in turn. An error ends
// the test.
func (s *Server) Get(t testing.TB, path string, parameters ...string) []byte {
	t.Helper()
	values := url.Values{}
	for i := 0; i < len(parameters); i += 2 {
		values.Set(parameters[i], parameters[i+1])
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path+"?"+values.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %s, %v", path, response.Status, body, err)
	}
	return body
}
