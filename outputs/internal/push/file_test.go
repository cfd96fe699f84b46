//go:build unix

package push

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sockwatch/outputs/internal/push/pushtest"
)

// TestOnlyRegularFilesAreRead has a FIFO without a writer in place of each
// file: no push waits for it.
func TestOnlyRegularFilesAreRead(t *testing.T) {
	server := pushtest.NewServer(t)
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(fifo, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, link, dir, "/dev/zero"} {
		for _, tt := range []struct {
			option string
			set    func(o *options)
		}{
			{option: "token_file", set: func(o *options) { o.TokenFile = path }},
			{option: "password_file", set: func(o *options) { o.Username, o.PasswordFile = "u", path }},
			{option: "tls_ca", set: func(o *options) { o.TLSCA = path }},
			{option: "tls_cert", set: func(o *options) { o.TLSCert, o.TLSKey = path, path }},
		} {
			o := to(server.URL)
			tt.set(&o)
			out, _ := newOutput(t, o)
			err := send(t, out, "m v=1i 1")
			if want := fmt.Sprintf("%s: %q is not a regular file", tt.option, path); fmt.Sprint(err) != want || pushtest.Kind(err) != "kept" {
				t.Errorf("%s: error\n%v, want\n%s", pushtest.Kind(err), err, want)
			}
		}
	}
	if r := server.Took(); len(r) > 0 {
		t.Errorf("requests without the secret: %v", r)
	}
}

// TestLinkToARegularFileIsRead uses links like those by which Kubernetes mounts
// secrets.
func TestLinkToARegularFileIsRead(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "data"), "t0k")
	if err := os.Symlink("data", filepath.Join(dir, "token")); err != nil {
		t.Fatal(err)
	}
	server := pushtest.NewServer(t)
	out, _ := newOutput(t, withToken(server.URL, filepath.Join(dir, "token")))
	if err := send(t, out, "m v=1i 1"); err != nil {
		t.Error(err)
	}
}

// TestHangingMount has a file whose read hangs until the test releases it: each push ends
// within its timeout with an error that names the file, no second read is started, and the
// result of the late read is not used.
func TestHangingMount(t *testing.T) {
	t.Parallel()
	server := pushtest.NewServer(t)
	out, _ := newOutput(t, withToken(server.URL, "/mnt/token"))
	f := out.client.credentials.file
	reads, release := make(chan int, 10), make(chan string)
	started := 0
	f.open = func() (fileContent, error) {
		started++ // reads never overlap
		reads <- started
		return fileContent{data: []byte(<-release), mode: 0o600}, nil
	}
	for range 3 {
		err := sendIn(t, out, 50*time.Millisecond, "m v=1i 1")
		if want := `token_file: reading "/mnt/token" took too long: context deadline exceeded`; fmt.Sprint(err) != want || pushtest.Kind(err) != "kept" {
			t.Fatalf("%s: error\n%v, want\n%s", pushtest.Kind(err), err, want)
		}
	}
	if n := len(reads); n != 1 {
		t.Errorf("%d reads, want 1", n)
	}
	pending := f.pending
	release <- "old"
	deadline := time.After(30 * time.Second)
	for len(pending) == 0 {
		select {
		case <-deadline:
			t.Fatal("the late read does not end")
		case <-time.After(time.Millisecond):
		}
	}
	go func() { release <- "new" }()
	if err := send(t, out, "m v=1i 1"); err != nil {
		t.Fatal(err)
	}
	if r := server.Took(); len(r) != 1 || r[0].Login != "Bearer new" {
		t.Errorf("requests %v, want one with the new token", r)
	}
}

// TestStopEndsAReadThatHangs has a stop arrive in the middle of a read.
func TestStopEndsAReadThatHangs(t *testing.T) {
	f := newFile("token_file", "/mnt/token", 1)
	ctx, cancel := context.WithCancel(t.Context())
	release := make(chan struct{})
	defer close(release)
	f.open = func() (fileContent, error) {
		cancel()
		<-release
		return fileContent{}, nil
	}
	if _, err := f.read(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that the context is canceled", err)
	}
}

func TestFileLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, strings.Repeat("x", 10))
	if c, err := readRegular(path, 10); err != nil || len(c.data) != 10 {
		t.Errorf("%d bytes, %v", len(c.data), err)
	}
	if _, err := readRegular(path, 9); fmt.Sprint(err) != fmt.Sprintf("%q is larger than 9 bytes", path) {
		t.Errorf("error %v", err)
	}
}
