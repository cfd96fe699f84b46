package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A reload while the reader of a stream hangs repeats no line and tears none: the new output
// continues in the middle of the write of the old one.
func TestReloadWhileTheReaderOfAStreamHangs(t *testing.T) {
	if testing.Short() {
		t.Skip("gathers for some seconds")
	}
	t.Parallel()
	fifo := filepath.Join(t.TempDir(), "lines")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	// Each batch has a line whose length depends on its options; together they exceed a pipe.
	config := func(prefix string) string {
		return fmt.Sprintf(`
[agent]
  interval = "100ms"
  shutdown_timeout = "5s"
  log_level = "debug"
  log_format = "json"
[[inputs.serial]]
  tags = { padding = %q }
[[outputs.file]]
  path = %q
  namepass = ["ids", %q]
  timeout = "1s"
`, strings.Repeat("x", 200), fifo, prefix)
	}
	d := startDaemon(t, config("a"))
	d.awaitLog(t, "delivery failed, will retry") // the pipe is full
	for _, prefix := range []string{"b", "c"} {
		d.reload(t, config(prefix))
	}
	lines := make(chan string, 1000)
	go func() {
		defer close(lines)
		scanner := bufio.NewScanner(reader)
		for scanner.Scan() {
			lines <- scanner.Text()
		}
	}()
	seen := make(map[string]bool)
	last := ""
	read := func(want int) {
		t.Helper()
		for len(seen) < want {
			select {
			case line := <-lines:
				var point struct{ Tags map[string]string }
				if err := json.Unmarshal([]byte(line), &point); err != nil {
					t.Fatalf("torn: %v: %q", err, line)
				}
				id := point.Tags["id"]
				if seen[id] || id <= last {
					t.Fatalf("%s after %s, seen before: %v", id, last, seen[id])
				}
				seen[id], last = true, id
			case <-time.After(30 * time.Second):
				t.Fatalf("%d lines have come, want %d", len(seen), want)
			}
		}
	}
	read(20 * idsPerBatch) // four times the capacity of the pipe
	d.stop(t)
	queued := d.queued("outputs.file")
	read(len(queued))
	for _, id := range queued {
		if !seen[id] {
			t.Errorf("%s is missing", id)
		}
	}
}
