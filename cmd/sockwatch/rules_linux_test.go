package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"sockwatch/agent/plugin/plugintest/servertest"
)

// A dashboard or an alert that was made without rules must not break when somebody writes
// the first one: all series of the listener stay, under the same names and labels.
func TestTheFirstRuleRenamesNoSeries(t *testing.T) {
	if testing.Short() {
		t.Skip("reloads a running program")
	}
	t.Parallel()
	listener := start(t, "listener", nil)
	eventually(t, "the listener's port", func() bool { return strings.HasSuffix(listener.stdout.String(), "\n") })
	port := strings.TrimSpace(listener.stdout.String())
	address, dir := servertest.FreeAddress(t), t.TempDir()
	configure := func(rule string) string {
		return writeFile(t, dir, "s.toml", fmt.Sprintf(`
[agent]
  interval = "200ms"
  hostname = "h"
[[inputs.tcp_listen]]
  timeout = "10s"
  established = true
  cmdline = true
%s
[[outputs.prometheus]]
  listen = %q
`, rule, address))
	}
	series := func() (all []string) {
		ofListener := regexp.MustCompile(`^tcp_listen_[a-z_]+\{.*port="` + port + `"`)
		ofEvents := regexp.MustCompile(`^tcp_listen_events_total\{event="[a-z_]+",host="h"\}`)
		for line := range strings.Lines(page(address)) {
			if ofListener.MatchString(line) || ofEvents.MatchString(line) {
				all = append(all, line[:strings.LastIndexByte(line, ' ')])
			}
		}
		return all
	}
	p := start(t, "sockwatch", nil, "--config", configure(""))
	eventually(t, "the listener", func() bool { return len(series()) >= 15 })
	before := series()
	if text := page(address); strings.Contains(text, "expected=") {
		t.Errorf("a label expected without rules:\n%s", text)
	}

	configure("  [[inputs.tcp_listen.forbid]]\n    name = \"first\"\n    port = " + port)
	if err := p.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the rule", func() bool {
		return strings.Contains(page(address), `tcp_listen_expect_up{host="h",name="first",rule="forbid"} 0`)
	})
	after := series()
	for _, s := range before {
		if !slices.Contains(after, s) {
			t.Errorf("gone with the first rule: %s", s)
		}
	}
	for _, s := range after {
		if !slices.Contains(before, s) && !strings.HasPrefix(s, "tcp_listen_violation_active{") {
			t.Errorf("new with the first rule: %s", s)
		}
	}
}
