package main

import (
	"bufio"
	"encoding/json"
	"go/format"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// docMain runs the two plugins of docs/plugin.md in an agent, once.
const docMain = `package main

import (
	"context"
	"log"
	"log/slog"
	"os"

	"sockwatch/agent/config"
	"sockwatch/agent/plugin"
	"sockwatch/inputs/loadavg"
	"sockwatch/outputs/lines"
)

func main() {
	text := "[[inputs.loadavg]]\n[[outputs.lines]]\naddress = \"" + os.Args[1] + "\"\n"
	a, err := config.Load([]config.File{{Name: "doc", Text: text}}, []plugin.Plugin{loadavg.Plugin, lines.Plugin}, config.Host{
		Getenv: os.LookupEnv, Log: slog.Default(), Hostname: func() (string, error) { return "dochost", nil },
	})
	if err == nil {
		err = a.Once(context.Background())
	}
	if err != nil {
		log.Fatal(err)
	}
}
`

// The plugins in docs/plugin.md compile, deliver a point through the agent to a receiver,
// and pass their own test.
func TestPluginDocRunsThroughTheAgent(t *testing.T) {
	if testing.Short() {
		t.Skip("builds two programs")
	}
	t.Parallel()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile(filepath.Join(root, "docs", "plugin.md"))
	if err != nil {
		t.Fatal(err)
	}
	// The files are in an overlay: the go command sees them, the tree does not contain them.
	overlay := map[string]string{}
	dir := t.TempDir()
	add := func(path, text string) {
		file := filepath.Join(dir, strings.ReplaceAll(path, "/", "_"))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay[filepath.Join(root, path)] = file
	}
	add("cmd/docexample/main.go", docMain)
	examples := regexp.MustCompile("(?ms)^##+ [^\n]*: (\\S+[.]go)$.*?^```go\n(.*?)^```$").FindAllStringSubmatch(string(doc), -1)
	if len(examples) != 3 {
		t.Fatalf("docs/plugin.md has %d files, want an input, an output and its test", len(examples))
	}
	for _, e := range examples {
		add(e[1], e[2])
		formatted, err := format.Source([]byte(e[2]))
		if err != nil || string(formatted) != e[2] {
			t.Errorf("%s is not formatted as gofmt does (%v)", e[1], err)
		}
		if n := strings.Count(e[2], "\n"); n > 100 {
			t.Errorf("%s has %d lines, want 100 at most", e[1], n)
		}
	}
	replace, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	overlayFile := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlayFile, replace, 0o600); err != nil {
		t.Fatal(err)
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			got <- err.Error()
			return
		}
		defer conn.Close()
		line, _ := bufio.NewReader(conn).ReadString('\n')
		io.WriteString(conn, "ok\n")
		got <- line
	}()
	program := filepath.Join(dir, "docexample")
	tests := filepath.Join(dir, "lines.test")
	for _, args := range [][]string{
		{"build", "-overlay=" + overlayFile, "-o", program, "./cmd/docexample"},
		{"test", "-c", "-vet=off", "-overlay=" + overlayFile, "-o", tests, "./outputs/lines"},
	} {
		build := exec.Command("go", args...)
		build.Dir = root
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", build, err, out)
		}
	}
	if out, err := exec.Command(program, l.Addr().String()).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	select {
	case line := <-got:
		if !regexp.MustCompile(`^"loadavg\{host=\\"dochost\\"\} ?\[\{one [0-9.]+\}\] ?[0-9]+"\n$`).MatchString(line) {
			t.Errorf("received %q", line)
		}
	case <-time.After(waitLimit):
		t.Error("received nothing")
	}
	if out, err := exec.Command(tests, "-test.v").CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestRejectedLinesAreNamed") {
		t.Errorf("the test of docs/plugin.md: %v\n%s", err, out)
	}
}
