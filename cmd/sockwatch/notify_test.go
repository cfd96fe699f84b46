package main

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"sockwatch/agent/plugin/plugintest/servertest"
)

func TestWatchdogIsFedIfTheManagerAsks(t *testing.T) {
	own, other := strconv.Itoa(os.Getpid()), strconv.Itoa(os.Getpid()+1)
	for _, test := range []struct {
		name string
		path string
		env  map[string]string
		want time.Duration
	}{
		{name: "no watchdog", path: "/s"},
		{name: "a watchdog", path: "/s", env: map[string]string{"WATCHDOG_USEC": "60000000"}, want: 20 * time.Second},
		{name: "of this process", path: "/s", env: map[string]string{"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": own}, want: time.Second},
		{name: "of another process", path: "/s", env: map[string]string{"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": other}},
		{name: "without a socket", env: map[string]string{"WATCHDOG_USEC": "3000000"}},
		{name: "not a number", path: "/s", env: map[string]string{"WATCHDOG_USEC": "3s"}},
		{name: "zero", path: "/s", env: map[string]string{"WATCHDOG_USEC": "0"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			getenv := func(name string) (string, bool) { value, ok := test.env[name]; return value, ok }
			if got := (&notifier{path: test.path}).keepalive(getenv).Interval; got != test.want {
				t.Errorf("interval %v, want %v", got, test.want)
			}
		})
	}
}

func TestProgramFeedsTheWatchdog(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the third message")
	}
	t.Parallel()
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	config := writeFile(t, t.TempDir(), "s.toml", exampleOn(servertest.FreeAddress(t)))
	start(t, "sockwatch", []string{"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=300000"}, "--config", config)
	manager.SetReadDeadline(time.Now().Add(waitLimit))
	for message, fed := make([]byte, 100), 0; fed < 3; {
		n, err := manager.Read(message)
		if err != nil {
			t.Fatalf("fed %d times: %v", fed, err)
		}
		if string(message[:n]) == "WATCHDOG=1" {
			fed++
		}
	}
}
