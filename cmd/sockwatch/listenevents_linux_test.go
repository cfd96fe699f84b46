package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin/plugintest/servertest"
)

// A program that gathers once an hour shows a listener at once, and writes the events of one
// that lived for 5 ms, with exact times and everything about its process, by listen events.
func TestProgramReportsListenersAtOnce(t *testing.T) {
	t.Parallel()
	address, file := servertest.FreeAddress(t), filepath.Join(t.TempDir(), "events.jsonl")
	p := start(t, "sockwatch", nil, "run", "--config", writeFile(t, t.TempDir(), "sockwatch.toml", fmt.Sprintf(`
[agent]
  interval = "1h"
[[inputs.tcp_listen]]
  timeout = "20s"
  settle = "100ms"
  settle_boot = "100ms"
[[outputs.prometheus]]
  listen = %q
[[outputs.file]]
  path = %q
  flush_interval = "0s"
  namepass = ["tcp_listen_event"]
`, address, file)))
	eventually(t, "events, or the reason why there are none", func() bool {
		return strings.Contains(page(address), `listen_events="on"`) || strings.Contains(p.stderr.String(), "listen events are not available")
	})
	if !strings.Contains(page(address), `listen_events="on"`) {
		t.Skip(p.stderr)
	}

	before := time.Now()
	brief := listenOn(t)
	time.Sleep(5 * time.Millisecond)
	brief.Close()
	after := time.Now()

	lasting := listenOn(t)
	defer lasting.Close()
	opened := time.Now()
	eventually(t, "the listener on the page", func() bool { return strings.Contains(page(address), port(lasting)) })
	t.Logf("on the page after %v", time.Since(opened))

	events := func() (found []map[string]any) {
		text, _ := os.ReadFile(file)
		for line := range strings.Lines(string(text)) {
			var e struct {
				Tags      map[string]any
				Fields    map[string]any
				Timestamp time.Time
			}
			if err := json.Unmarshal([]byte(line), &e); err != nil || !strings.Contains(line, port(brief)) {
				continue // not whole yet, or of another test
			}
			if e.Timestamp.Before(before.Add(-time.Millisecond)) || e.Timestamp.After(after.Add(100*time.Millisecond)) {
				t.Errorf("at %v, want a time between %v and %v", e.Timestamp, before, after)
			}
			facts := map[string]any{"event": e.Tags["event"], "process": e.Tags["process"]}
			for _, key := range []string{"window_seconds", "pid", "listen_pid", "exe", "parent_pid"} {
				facts[key] = e.Fields[key]
			}
			found = append(found, facts)
		}
		return found
	}
	// A gather reports the end when it has settled. The listeners start the gathers.
	eventually(t, "the events of the brief listener", func() bool {
		listenOn(t).Close()
		return len(events()) >= 2
	})
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	name, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	of := func(event string) map[string]any {
		return map[string]any{
			"event": event, "process": strings.TrimSpace(string(name)), "window_seconds": 0.0, "exe": exe,
			"pid": float64(os.Getpid()), "listen_pid": float64(os.Getpid()), "parent_pid": float64(os.Getppid()),
		}
	}
	if diff := cmp.Diff([]map[string]any{of("opened"), of("closed")}, events()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func listenOn(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// port returns the port of a listener as it stands in JSON and on a page, in quotes.
func port(l net.Listener) string { return strconv.Quote(strconv.Itoa(l.Addr().(*net.TCPAddr).Port)) }
