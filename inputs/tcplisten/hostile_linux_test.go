package tcplisten

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// TestH1H3 shows hostile names as one line each, and two names as two.
func TestH1H3HostileNames(t *testing.T) {
	names := map[string]string{
		"a\nb c=1 2": `a\x0ab c=1 2`, ") R 1 1": ") R 1 1", "\xff\xfe": `\xff\xfe`, "\xff": `\xff`, `\xff`: `\x5cxff`,
		"fifteen-bytes-\xc3\xa9": `fifteen-bytes-\xc3`, "((": "((", "\u202eevil": `\xe2\x80\xaeevil`, "a\x00b": "a",
	}
	in := open(t, Defaults())
	ports := make(map[string]int)
	for name := range names {
		_, opened := start(t, task{Name: []byte(name), Listen: []listenTask{{Addr: "127.0.0.1"}}})
		ports[name] = opened[0]
	}
	b := gather(t, in)
	for name, want := range names {
		p := one(t, b, ports[name])
		if got := p.Tag("process"); got != want {
			t.Errorf("%q is shown as %q, expected %q", name, got, want)
		}
	}
}

// TestEmptyName tells a process that has emptied its name from one unknown.
func TestEmptyName(t *testing.T) {
	_, ports := start(t, task{Name: []byte{0}, Listen: []listenTask{{Addr: "127.0.0.1"}}})
	if p := one(t, gather(t, open(t, Defaults())), ports[0]); p.Tag("process") != `\x00` || p.Tag("owner") != "resolved" {
		t.Error(p.Series())
	}
}

// TestH5 shows arguments only where they are asked for, and at most 256 bytes of
// them, cut between two characters.
func TestH5HugeArguments(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	arguments := []string{"-c", "sleep 600; true", "first", "secret\nécole"}
	for range 15 { // 2 MB, in arguments of at most 128 KiB
		arguments = append(arguments, strings.Repeat("é", 60000))
	}
	cmd := exec.Command("sh", arguments...)
	cmd.ExtraFiles = []*os.File{file}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	file.Close()
	t.Cleanup(func() { end(cmd) })
	if v, ok := fieldOf(gather(t, open(t, Defaults())), port, "cmdline"); ok {
		t.Errorf("cmdline = %q though it is off", v.AsString())
	}
	options := Defaults()
	options.Cmdline = true
	v, _ := fieldOf(gather(t, open(t, options)), port, "cmdline")
	text := v.AsString()
	if !strings.HasPrefix(text, `sh -c sleep 600; true first secret\x0aécole é`) || !strings.HasSuffix(text, "é") {
		t.Errorf("cmdline = %q", text)
	}
	if len(text) > 256 || len(text) < 250 || !utf8.ValidString(text) {
		t.Errorf("cmdline has %d bytes", len(text))
	}
}

func fieldOf(b metric.Batch, port int, key string) (metric.Value, bool) {
	for _, p := range at(b, port) {
		return p.Field(key)
	}
	return metric.Value{}, false
}

// TestH6 shows a program that was deleted, and one whose path has a newline.
func TestH6DeletedProgram(t *testing.T) {
	exe := filepath.Join(t.TempDir(), "evil\nname")
	copyFile(t, exe)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	cmd := exec.Command(exe, "600")
	cmd.ExtraFiles = []*os.File{file}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { end(cmd) })
	file.Close()
	want := strings.ReplaceAll(exe, "\n", `\x0a`)
	if v, _ := fieldOf(gather(t, open(t, Defaults())), port, "exe"); v.AsString() != want {
		t.Errorf("exe = %q, expected %q", v.AsString(), want)
	}
	if err := os.Remove(exe); err != nil {
		t.Fatal(err)
	}
	if v, _ := fieldOf(gather(t, open(t, Defaults())), port, "exe"); v.AsString() != want+" (deleted)" {
		t.Errorf("exe = %q, expected %q", v.AsString(), want+" (deleted)")
	}
}

// copyFile copies sleep(1), which needs nothing but itself.
func copyFile(t *testing.T, to string) {
	t.Helper()
	path, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip(err)
	}
	from, err := os.Open(path)
	if err != nil {
		t.Skip(err)
	}
	defer from.Close()
	file, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(file, from); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestH7 keeps the listeners of others whole when one user has 30,000.
func TestH7ThirtyThousandListeners(t *testing.T) {
	if elsewhere(t) {
		return
	}
	ip(t, "link set lo up")
	const processes, each = 3, 10000
	for i := range processes {
		startAs(t, nobody, task{Listen: []listenTask{{Addr: fmt.Sprintf("127.0.0.%d", i+1), Port: 10000, Count: each}}})
	}
	start(t, task{Name: []byte("others"), Listen: []listenTask{{Addr: "127.0.0.9", Port: 60000}, {Addr: "127.0.0.9", Port: 1}}})
	in := open(t, Defaults())
	var before metric.Batch
	for range 3 {
		b := gather(t, in)
		if n := len(b.Points); n != 5001 {
			t.Fatalf("%d points, expected max_listeners and one", n)
		}
		p := b.Points[5000]
		if p.Name != pointOverflow || p.Tag("user") != "nobody" || field(t, p, "listeners") != 25002 || field(t, p, "sockets") != 25002 {
			t.Errorf("%s %v", p.Series(), p.Fields)
		}
		for _, port := range []int{1, 60000} {
			if p := one(t, b, port); p.Tag("process") != "others" {
				t.Error(p.Series())
			}
		}
		if before.Points != nil && before.Points[4000].Series() != b.Points[4000].Series() {
			t.Error("other listeners of the user stay than at the gather before")
		}
		before = b
	}
}

// TestH8 remembers nothing of listeners that come and go.
func TestH8Churn(t *testing.T) {
	in := open(t, Defaults()).(*input)
	gather(t, in)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var opened atomic.Int64
	var churn sync.WaitGroup
	churn.Go(func() {
		for ctx.Err() == nil {
			if l, err := net.Listen("tcp4", "127.0.0.1:0"); err == nil {
				opened.Add(1)
				l.Close()
			}
		}
	})
	gatherUntil := func(n int64) (heap uint64) {
		for opened.Load() < n {
			gather(t, in)
		}
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := gatherUntil(1000)
	after := gatherUntil(5000)
	stop()
	churn.Wait()
	for range 3 {
		gather(t, in)
	}
	if after > before+1<<20 {
		t.Errorf("the heap grew from %d to %d bytes", before, after)
	}
	n := 0
	for _, sp := range in.spaces {
		n += len(sp.listeners)
	}
	if n != len(in.listeners) || len(in.groups.byKey) != len(in.groups.sorted) || len(in.sightings.known) > len(in.groups.sorted) {
		t.Errorf("%d listeners, %d of spaces, %d groups, %d by key, %d sightings", len(in.listeners), n,
			len(in.groups.sorted), len(in.groups.byKey), len(in.sightings.known))
	}
}

// churn listens on one address after the other, and calls itself after the address
// as long as it does: never does it listen under another name.
func churn() {
	for i := 0; ; i++ {
		addr := fmt.Sprintf("127.0.%d.%d", i>>8&255, i&255)
		if err := os.WriteFile("/proc/self/comm", []byte(addr), 0); err != nil {
			fmt.Println("error:", err)
			return
		}
		if fd, _, err := (&listenTask{Addr: addr}).open(); err == nil {
			time.Sleep(time.Duration(i%8) * 300 * time.Microsecond) // as long as a search takes
			unix.Close(fd)
		}
	}
}

// TestH8NeverAWrongOwner names no owner but the right one, and says nothing, where
// thousands of sockets a second come and go, and their owner changes its name.
func TestH8NeverAWrongOwner(t *testing.T) {
	if elsewhere(t, unix.CLONE_NEWPID) {
		return
	}
	ip(t, "link set lo up")
	for range 4 {
		start(t, task{Churn: true})
	}
	in, log := openLogging(t, Defaults(), plugin.Env{Name: pointListener})
	status := make(map[string]int)
	for range 500 {
		for _, p := range gather(t, in).Points {
			status[p.Tag("owner")]++
			if process := p.Tag("process"); process != "" && process != p.Tag("address") {
				t.Errorf("%s", p.Series())
			}
		}
	}
	t.Log(status)
	if status["resolved"] == 0 || status["exited"] == 0 {
		t.Errorf("too little happened: %v", status)
	}
	if log.Len() > 0 {
		t.Errorf("logged: %s", log)
	}
}

// TestH9 learns within owner_verify that a process has renamed itself.
func TestH9Renamed(t *testing.T) {
	child, ports := start(t, task{Name: []byte("before"), NewName: []byte("after"), Listen: []listenTask{{Addr: "127.0.0.1"}}})
	in := open(t, Defaults()).(*input)
	now := time.Now()
	again := func() string {
		t.Helper()
		b, err := in.gather(t.Context(), now)
		if err != nil {
			t.Fatal(err)
		}
		p := one(t, b, ports[0])
		return p.Tag("process")
	}
	if name := again(); name != "before" {
		t.Fatalf("it is called %q", name)
	}
	child.Process.Signal(syscall.SIGUSR1)
	soon(t, "it has renamed itself", func() bool {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", child.Process.Pid))
		return string(text) == "after\n"
	})
	for range 6 {
		now = now.Add(10 * time.Second)
		again()
	}
	if name := again(); name != "after" {
		t.Errorf("after owner_verify it is still called %q", name)
	}
}
