package tcplisten

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sockwatch/agent/plugin"
	"sockwatch/inputs/internal/expect"
	"sockwatch/inputs/internal/netns"
	"sockwatch/inputs/internal/testchild"
)

// A listener of the first gather has no event until it closes, and its parent is known even
// then.
func TestParentOfWhatListenedAtTheBaselineIsKnown(t *testing.T) {
	o := observe(t, eventOptions())
	if o == nil {
		return
	}
	web := service(t, "web", "127.0.0.1", 4000)
	o.wants(0)
	o.wants(10 * time.Second)
	web.End()
	o.wants(10 * time.Second)
	e := o.wants(time.Minute, "closed 127.0.0.1:4000 web")
	if parent, want := fieldText(e[0], "parent_pid"), strconv.Itoa(os.Getpid()); parent != want {
		t.Errorf("parent_pid %q, want %s", parent, want)
	}
	if age := fieldText(e[0], "age_seconds"); age != "" {
		t.Errorf("age_seconds %s, though nobody knows when it opened", age)
	}
}

// The first gather has violations, though it has no changes.
func TestParentOfAViolatorOfTheFirstGatherIsKnown(t *testing.T) {
	options := eventOptions()
	options.Forbid = []expect.Forbid{{Name: "telnet", Criteria: expect.Criteria{Process: plugin.Strings{"telnetd"}}}}
	o := observe(t, options)
	if o == nil {
		return
	}
	service(t, "telnetd", "127.0.0.1", 4000)
	e := o.gatherAfter(0).Events
	if len(e) != 1 || e[0].Tag("event") != "violated" {
		t.Fatalf("events %v, want one violation", e)
	}
	if parent, want := fieldText(e[0], "parent_pid"), strconv.Itoa(os.Getpid()); parent != want {
		t.Errorf("parent_pid %q, want %s", parent, want)
	}
}

func TestProgramFromAnotherPathIsReportedAtItsRestart(t *testing.T) {
	o := observe(t, eventOptions())
	if o == nil {
		return
	}
	dir := t.TempDir()
	trusted, evil := filepath.Join(dir, "sshd"), filepath.Join(dir, "tmp", "sshd")
	if err := os.Mkdir(filepath.Dir(evil), 0o755); err != nil {
		t.Fatal(err)
	}
	copyFile(t, trusted)
	copyFile(t, evil)
	first := execute(t, trusted, socket(t, "127.0.0.1", 4000))
	o.wants(0)
	o.wants(10 * time.Second)
	end(first)
	execute(t, evil, socket(t, "127.0.0.1", 4000))
	e := o.wants(10*time.Second, "restarted 127.0.0.1:4000 sshd exe_changed")
	if exe, previous := fieldText(e[0], "exe"), fieldText(e[0], "previous_exe"); exe != evil || previous != trusted {
		t.Errorf("exe %s, previous_exe %s", exe, previous)
	}
}

func TestSumOfTheProgramShowsThatItWasReplaced(t *testing.T) {
	options := eventOptions()
	options.ExeSHA256 = true
	o := observe(t, options)
	if o == nil {
		return
	}
	program := filepath.Join(t.TempDir(), "sshd")
	copyFile(t, program)
	first := execute(t, program, socket(t, "127.0.0.1", 4000))
	soon(t, "the sum of the program is known", func() bool {
		o.wants(time.Second)
		return len(o.listeners.all) == 1 && o.listeners.all[0].observed.Holders[0].Facts.ExeSHA256 != ""
	})
	sum := o.listeners.all[0].observed.Holders[0].Facts.ExeSHA256
	o.wants(10 * time.Second)
	end(first)
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	copyFile(t, program)
	file, err := os.OpenFile(program, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = file.WriteString("another one")
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	execute(t, program, socket(t, "127.0.0.1", 4000))
	e := o.wants(10*time.Second, "restarted 127.0.0.1:4000 sshd exe_changed")
	if got := fieldText(e[0], "exe_sha256"); len(got) != 64 || got == sum {
		t.Errorf("exe_sha256 %s, before %s", got, sum)
	}
}

// TestSumIsThatOfTheProgramThatTheOwnerRunsNow: a program such as systemd-socket-activate listens
// and executes another one, and a server may execute its own successor.
func TestSumIsThatOfTheProgramThatTheOwnerRunsNow(t *testing.T) {
	options := eventOptions()
	options.ExeSHA256, options.OwnerRefresh = true, plugin.Duration(5*time.Minute)
	o := observe(t, options)
	if o == nil {
		return
	}
	shell, err := exec.LookPath("dash")
	if err != nil {
		t.Skip(err)
	}
	text, err := os.ReadFile(shell)
	if err != nil {
		t.Fatal(err)
	}
	programs := make(map[string]string) // paths, by sum
	// install puts a copy of the shell at a path, and returns its sum.
	install := func(path string, version byte) string {
		t.Helper()
		program := append(slices.Clip(text), version)
		if err := errors.Join(os.WriteFile(path+".new", program, 0o755), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
		sum := fmt.Sprintf("%x", sha256.Sum256(program))
		programs[sum] = path
		return sum
	}
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	first, second := install(one, 1), install(two, 2)
	stdin, next, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	executeWith(t, stdin, socket(t, "127.0.0.1", 4000), one, "-c", `read next; exec "$0" -c 'read next; exec "$0" -c "read next" "$0"' "$0"`, two)
	stdin.Close()
	wants := func(what, path, sum string, between time.Duration) {
		t.Helper()
		soon(t, "the sum is that of "+what, func() bool {
			o.wants(between)
			facts := &o.listeners.all[0].observed.Holders[0].Facts
			if facts.ExeSHA256 != "" && facts.Exe != programs[facts.ExeSHA256] {
				t.Errorf("%s has the sum of %s", facts.Exe, programs[facts.ExeSHA256])
			}
			return facts.Exe == path && facts.ExeSHA256 == sum
		})
	}
	wants("the first program", one, first, time.Second)
	next.WriteString("\n")
	wants("the second program", two, second, time.Second)
	third := install(two, 3)
	next.WriteString("\n")
	wants("the successor of the second program", two, third, time.Minute)
}

// manager starts a child that counts as a manager, because it is in an init.scope. Its cgroup
// is not that of another test that runs at the same time.
func manager(t *testing.T, file *os.File) *testchild.Child {
	t.Helper()
	c, err := spawn(&task{Name: []byte("systemd"), Worker: true}, []*os.File{file}, makeCgroup(t, fmt.Sprintf("sockwatch-%x/init.scope", rand.Uint64())), new([]int))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.End)
	file.Close()
	return c
}

func TestSocketActivationIsOneOwner(t *testing.T) {
	o := observe(t, eventOptions())
	if o == nil {
		return
	}
	m := manager(t, socket(t, "127.0.0.1", 4000))
	o.wants(0)
	service := hand(t, "sshd", take(t, m)) // the first connection
	o.wants(10 * time.Second)
	o.wants(time.Minute)
	service.End() // it exits when idle
	o.wants(10 * time.Second)
	o.wants(time.Hour)
	service = hand(t, "sshd", take(t, m))
	e := o.wants(10*time.Second, "restarted 127.0.0.1:4000 sshd")
	if down := fieldText(e[0], "down_seconds"); down != "0" {
		t.Errorf("down_seconds %s, although the manager has kept the socket", down)
	}
	m.End() // the service keeps running
	o.wants(10 * time.Second)
	service.End()
	o.wants(10 * time.Second)
	o.wants(time.Minute, "closed 127.0.0.1:4000 sshd")
}

func TestServiceTakesAnActivatedSocketFromAnotherOne(t *testing.T) {
	o := observe(t, eventOptions())
	if o == nil {
		return
	}
	m := manager(t, socket(t, "127.0.0.1", 4000))
	service := hand(t, "sshd", take(t, m))
	o.wants(0)
	service.End()
	o.wants(10 * time.Second)
	hand(t, "evil", take(t, m))
	o.wants(10*time.Second, "owner_changed 127.0.0.1:4000 evil previous_process=sshd")
}

func TestUnreadableOwnersAreNotChanges(t *testing.T) {
	o := observe(t, eventOptions())
	if o == nil {
		return
	}
	web := service(t, "web", "127.0.0.1", 4000)
	o.wants(0)
	withoutReading(t, func() {
		web.End()
		web = service(t, "web", "127.0.0.1", 4000)
		o.wants(10*time.Second, "restarted 127.0.0.1:4000")
		o.wants(10 * time.Second)
	})
	o.wants(10 * time.Second)
	o.wants(time.Hour)
	web.End()
	service(t, "evil", "127.0.0.1", 4000)
	o.wants(10*time.Second, "owner_changed 127.0.0.1:4000 evil previous_process=web")
}

// withoutReading calls do without the capabilities that are needed to read other processes.
func withoutReading(t *testing.T, do func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var all, less [2]unix.CapUserData
	if err := unix.Capget(&header, &all[0]); err != nil {
		t.Fatal(err)
	}
	less = all
	less[0].Effective &^= capabilities | 1<<unix.CAP_DAC_OVERRIDE
	if err := unix.Capset(&header, &less[0]); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Capset(&header, &all[0]); err != nil {
			t.Fatal(err)
		}
	}()
	do()
}

func TestRulesKnowThatAddressesAreUnknown(t *testing.T) {
	l := groupsOf(0, 80, 1, 1)[0].members[0]
	if e := l.forRules(namesOf(func(uint32) string { return "root" })); !e.ExposureUnknown {
		t.Error("the exposure counts as known, although no addresses were read")
	}
	l.table.local = new(netns.Local)
	if e := l.forRules(namesOf(func(uint32) string { return "root" })); e.ExposureUnknown {
		t.Error("the exposure counts as unknown, although addresses were read")
	}
}

func TestHostileNamesInEvents(t *testing.T) {
	o := observe(t, eventOptions())
	if o == nil {
		return
	}
	o.wants(0)
	const hostile = "a\nb\\\"=1,2\xff"
	web := service(t, hostile, "127.0.0.1", 4000)
	const escaped = `a\x0ab\x5c"=1,2\xff`
	o.wants(10*time.Second, "opened 127.0.0.1:4000 "+escaped)
	web.End()
	web = service(t, "web", "127.0.0.1", 4000)
	o.wants(10*time.Second, "owner_changed 127.0.0.1:4000 web previous_process="+escaped)
	o.kill(eventOptions())
	o.wants(10 * time.Second)
	web.End()
	service(t, hostile, "127.0.0.1", 4000)
	o.wants(10*time.Second, "owner_changed 127.0.0.1:4000 "+escaped+" previous_process=web")
}
