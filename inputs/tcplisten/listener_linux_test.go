package tcplisten

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sockwatch/agent/plugin"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestHostileNames shows each hostile name as one line, and different names as different.
func TestHostileNames(t *testing.T) {
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

// TestEmptyName distinguishes a process that has emptied its name from an unknown one.
func TestEmptyName(t *testing.T) {
	_, ports := start(t, task{Name: []byte{0}, Listen: []listenTask{{Addr: "127.0.0.1"}}})
	if p := one(t, gather(t, open(t, Defaults())), ports[0]); p.Tag("process") != `\x00` || p.Tag("owner") != "resolved" {
		t.Error(p.Series())
	}
}

// TestHugeArguments shows arguments only if the option is set, and at most 256 bytes of them,
// cut between two characters.
func TestHugeArguments(t *testing.T) {
	if testing.Short() {
		t.Skip("passes 2 MB of arguments")
	}
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

// TestDeletedProgram shows a program that was deleted, and one whose path has a newline.
func TestDeletedProgram(t *testing.T) {
	exe := filepath.Join(t.TempDir(), "evil\nname (deleted)")
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
	for _, deleted := range []bool{false, true} {
		b := gather(t, open(t, Defaults()))
		path, _ := fieldOf(b, port, "exe")
		is, _ := fieldOf(b, port, "exe_deleted")
		if path.AsString() != want || is.AsBool() != deleted {
			t.Errorf("exe %q, exe_deleted %v, want %q, %v", path.AsString(), is, want, deleted)
		}
		os.Remove(exe)
	}
}

// copyFile copies sleep(1), whose program is a single file.
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

// A port with listeners on several addresses gives one point for each address.
func TestOnePortManyAddresses(t *testing.T) {
	if elsewhere(t) {
		return
	}
	ip(t, "link set lo up")
	ip(t, "link add hw0 type veth peer name hw1")
	ip(t, "link set hw1 up")
	ip(t, "link set hw0 up")
	ip(t, "address add fe80::7/64 dev hw0 nodad")
	listen := []listenTask{
		{Addr: "127.0.0.1"}, {Addr: "0.0.0.0"}, {Addr: "::", V6Only: true}, {Addr: "::1"}, {Addr: "fe80::7%hw0"},
		{Addr: "0.0.0.0", Device: "lo"}, {Addr: "::ffff:127.0.0.2"},
	}
	for i := range listen {
		listen[i].Port, listen[i].ReusePort = 4000, true
	}
	start(t, task{Listen: listen})
	in := open(t, Defaults())
	want := []string{
		"0.0.0.0 ipv4 loopback", "0.0.0.0%lo ipv4 loopback", "127.0.0.1 ipv4 loopback", ":: ipv6 link_local", "::1 ipv6 loopback",
		"::ffff:127.0.0.2 ipv4 loopback", "fe80::7%hw0 ipv6 link_local",
	}
	var got []string
	defer func() {
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}()
	soon(t, "the link-local address is there", func() bool {
		got = nil
		for _, p := range at(gather(t, in), 4000) {
			got = append(got, p.Tag("address")+" "+p.Tag("family")+" "+p.Tag("exposure"))
		}
		slices.Sort(got)
		return slices.Equal(got, want)
	})
}

// TestExposureFollowsAddresses gives a wildcard the class of the current local addresses. For
// IPv4 these include the addresses of a link that is down.
func TestExposureFollowsAddresses(t *testing.T) {
	if elsewhere(t) {
		return
	}
	start(t, task{Listen: []listenTask{{Addr: "0.0.0.0", Port: 4000}, {Addr: "::", Port: 4001}}})
	in := open(t, Defaults())
	for _, step := range []struct{ ip, v4, dual string }{
		{"link show lo", "", ""},
		{"link set lo up", "loopback", "loopback"},
		{"address add 10.1.2.3/32 dev lo", "private", "private"},
		{"address add 2001:db8::1/128 dev lo nodad", "private", "public"},
		{"address add 192.0.2.1/32 dev lo", "public", "public"},
		{"address delete 192.0.2.1/32 dev lo", "private", "public"},
		{"link set lo down", "private", "private"},
	} {
		ip(t, step.ip)
		// The kernel adds an IPv6 address shortly after ip has returned.
		soon(t, fmt.Sprintf("%q and %q after ip %s", step.v4, step.dual, step.ip), func() bool {
			b := gather(t, in)
			v4, dual := one(t, b, 4000), one(t, b, 4001)
			return v4.Tag("exposure") == step.v4 && dual.Tag("exposure") == step.dual
		})
	}
}

// TestGatherWithoutDescriptors keeps the known state when the program cannot open a
// file, and catches up when it can.
func TestGatherWithoutDescriptors(t *testing.T) {
	if elsewhere(t) {
		return
	}
	ip(t, "link set lo up")
	start(t, task{Name: []byte("known"), Listen: []listenTask{{Addr: "0.0.0.0", Port: 4000}}})
	options := Defaults()
	options.OwnerVerify, options.OwnerRefresh = 1, 1 // everything in every gather
	options.OwnerSource = ownerSourceProcfs          // package bpf leaves descriptors to the garbage collector
	in, log := openLogging(t, options, plugin.Env{Name: pointListener})
	gather(t, in)
	next, err := unix.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(next)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := unix.Rlimit{Cur: uint64(next), Max: limit.Max}
	start(t, task{Name: []byte("new"), Listen: []listenTask{{Addr: "0.0.0.0", Port: 4001}}})
	ip(t, "address add 8.8.8.8/32 dev lo")
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	for range 3 {
		b := gather(t, in)
		if p := one(t, b, 4000); p.Tag("owner") != "resolved" || p.Tag("process") != "known" {
			t.Error(p.Series())
		}
		if p := one(t, b, 4001); p.Tag("owner") != "pending" || b.Partial == "" {
			t.Errorf("%s, partial %q", p.Series(), b.Partial)
		}
	}
	limits := in.(plugin.LimitReporter).Limits
	if got := limits(); len(got) != 1 || !strings.Contains(got[0], "raise the limit on open files (systemd: LimitNOFILE=) (out of resources: ") {
		t.Errorf("limits %q", got)
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), "raise the limit on open files") {
		t.Errorf("%d warnings: %s", n, log)
	}
	unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	b := gather(t, in)
	if got := limits(); got != nil {
		t.Errorf("limits %q after they are mended", got)
	}
	for port, process := range map[int]string{4000: "known", 4001: "new"} {
		if p := one(t, b, port); p.Tag("exposure") != "public" || p.Tag("process") != process {
			t.Error(p.Series())
		}
	}
}
