package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"sockwatch/agent/plugin/plugintest/servertest"
)

func TestReloadReadsRuleFilesAgain(t *testing.T) {
	if testing.Short() {
		t.Skip("reloads a running program")
	}
	t.Parallel()
	dir, address := t.TempDir(), servertest.FreeAddress(t)
	other := start(t, "listener", nil)
	eventually(t, "the other process's port", func() bool { return strings.HasSuffix(other.stdout.String(), "\n") })
	rules := writeFile(t, dir, "rules.toml", fmt.Sprintf("[[expect]]\nname = 'a'\nport = %s\n", strings.TrimSpace(other.stdout.String())))
	path := writeFile(t, t.TempDir(), "s.toml", fmt.Sprintf(`[agent]
interval = "200ms"
[[inputs.tcp_listen]]
timeout = "10s"
expect_file = ["%s/*.toml", "/none/*.toml"]
[[outputs.prometheus]]
listen = "%s"
`, dir, address))
	p := start(t, "sockwatch", nil, "--config", path)
	up := func() string {
		m := regexp.MustCompile(`(?m)^tcp_listen_expect_up\{.*name="(.*?)",rule="expect"\} (\S+)$`).FindStringSubmatch(page(address))
		if m == nil {
			return ""
		}
		return m[1] + " " + m[2]
	}
	eventually(t, "the rule", func() bool { return up() == "a 1" })

	reload := func(text string) {
		t.Helper()
		if err := os.WriteFile(rules, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		p.Process.Signal(syscall.SIGHUP)
	}
	reload("[[expect]]\nname = 'b'\nport = 1\n")
	eventually(t, "the other rule", func() bool { return up() == "b 0" })
	reload("[[expect]]\nname = 'c'\nport = 0\n")
	eventually(t, "the error", func() bool {
		return strings.Contains(p.stderr.String(), rules+":3: expect: port: 0 is not a port: ports are 1 to 65535")
	})
	if got := up(); got != "b 0" {
		t.Errorf("%q after a reload that failed, want the rule before it", got)
	}
}

func TestIncludedPipeIsRefusedAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := readRegular(path)
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil || err.Error() != "is not a regular file" {
			t.Errorf("error %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("still waits for a writer")
	}
}
