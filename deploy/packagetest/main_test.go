// Package packagetest tests the output of deploy/package.sh: it boots a systemd to test the
// packages and the service, and runs the container image.
package packagetest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMain lets the test binary be the other programs that the tests run.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 {
		switch os.Args[1] {
		case "listen":
			os.Exit(listen(os.Args[2]))
		case "brief":
			os.Exit(listenBriefly(os.Args[2]))
		case "get":
			os.Exit(get(os.Args[2]))
		case "contain":
			os.Exit(contain(os.Args[2:]))
		}
	}
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// listen listens on an address, prints it, and runs until it is killed.
func listen(address string) int {
	l, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(l.Addr())
	select {}
}

// listenBriefly listens on an address for 5 ms, and runs until it is killed.
func listenBriefly(address string) int {
	l, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	time.Sleep(5 * time.Millisecond)
	l.Close()
	select {}
}

// get prints the metrics that a unix socket serves.
func get(socket string) int {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	response, err := client.Get("http://sockwatch/metrics")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer response.Body.Close()
	io.Copy(os.Stdout, response.Body)
	return 0
}

// built is the output of package.sh, built once per run.
var built struct {
	once     sync.Once
	dir      string
	current  string // of this source
	previous string // of the same with version 0.1.9 and another configuration; this machine's architecture alone
	err      error
}

// build runs package.sh for the tests. It skips unless it runs as root.
func build(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("boots a system, which takes root")
	}
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "packagetest-"); built.err != nil {
			return
		}
		built.current = filepath.Join(built.dir, "current")
		if built.err = packageSh("..", built.current); built.err != nil {
			return
		}
		source := filepath.Join(built.dir, "source")
		if built.err = copySource(source); built.err != nil {
			return
		}
		for _, edit := range []struct{ file, from, to string }{
			{"cmd/sockwatch/version.go", sourceVersion, "0.1.9"},
			{"deploy/package/sockwatch.toml", "[agent]\n", "[agent]\n  ## A line of the previous release.\n"},
		} {
			if built.err = replaceIn(filepath.Join(source, edit.file), edit.from, edit.to); built.err != nil {
				return
			}
		}
		built.previous = filepath.Join(built.dir, "previous")
		built.err = packageSh(filepath.Join(source, "deploy"), built.previous, "ARCHES="+runtime.GOARCH)
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
}

// need skips the test if a program is not installed, unless it is required.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("SOCKWATCH_REQUIRE_SERVERS") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// epoch is the time of everything in the packages and the image.
const epoch = "SOURCE_DATE_EPOCH=1700000000"

func packageSh(deploy, out string, env ...string) error {
	cmd := exec.Command(filepath.Join(deploy, "package.sh"), out)
	cmd.Env = append(append(os.Environ(), epoch), env...)
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("package.sh: %w\n%s", err, output)
	}
	return nil
}

// copySource copies the files of the repository, committed or not.
func copySource(dir string) error {
	files, err := exec.Command("git", "-C", "../..", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		return fmt.Errorf("git ls-files: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(files), "\x00"), "\x00") {
		from, to := filepath.Join("../..", name), filepath.Join(dir, name)
		info, err := os.Lstat(from)
		if os.IsNotExist(err) {
			continue // deleted, and that is not committed yet
		}
		if err != nil {
			return err
		}
		text, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(to, text, info.Mode().Perm()); err != nil {
			return err
		}
	}
	return nil
}

// replaceIn replaces a text in a file.
func replaceIn(file, from, to string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if !strings.Contains(string(text), from) {
		return fmt.Errorf("%s does not contain %q", file, from)
	}
	return os.WriteFile(file, []byte(strings.Replace(string(text), from, to, 1)), 0o644)
}

// one returns the one file that matches a pattern.
func one(t *testing.T, pattern string) string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) != 1 {
		t.Fatalf("%s: %q, %v; want one file", pattern, files, err)
	}
	return files[0]
}
