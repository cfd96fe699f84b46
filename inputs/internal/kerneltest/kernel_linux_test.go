// Package kerneltest runs the tests of the inputs on another kernel, in an emulated machine:
//
//	apt-get download linux-image-6.1.0-56-cloud-amd64 && dpkg-deb -x linux-image-*.deb /tmp/kernel
//	go test ./inputs/internal/kerneltest -v -timeout 30m -kernel /tmp/kernel
//
// It needs qemu-system-x86_64, which emulates in software: no /dev/kvm, no root. The machine
// has no disk: its initramfs holds the test programs, the few programs that they run, and this
// test program as its init.
package kerneltest

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	kernel = flag.String("kernel", "", "folder in which a kernel package of Debian was unpacked; without it, nothing is tested")
	only   = flag.String("kernel.run", "", "regular expression of the tests to run there, instead of all; without spaces")
)

func TestMain(m *testing.M) {
	if os.Getpid() == 1 {
		boot()
	}
	flag.Parse()
	os.Exit(m.Run())
}

// A suite is some tests of a package.
type suite struct {
	name   string
	folder string // of the package in the repository and, below /source, in the machine
	short  bool   // with -short
	tests  string // regular expression of the tests; "": all
	// skipped are tests that do not run there: they skip themselves on that kernel, or take too
	// long in emulation. Any other that does would hide that something does not work, unless
	// another suite runs it.
	skipped []string
}

var suites = []suite{
	{name: "bpf", folder: "inputs/internal/bpf", skipped: []string{
		"TestCommittedObjectIsOfThisSource", // no compiler there
	}},
	{name: "owner", folder: "inputs/internal/owner", short: true, skipped: []string{
		"TestIOURing", // since 6.15
		"TestVeryManyFiles", "TestVeryManyFilesInADirectory", "TestVeryManyProcesses",
	}},
	{name: "owner, long", folder: "inputs/internal/owner", tests: "^(TestKernelFindsTheSame|TestSocketIsPendingWhileThreadsAreSearched|TestChangesAreKnownWithinVerify" +
		"|TestKnownArgumentsStayWhileTheirReadHangs)$"},
	{name: "input", folder: "inputs/tcplisten", short: true, skipped: []string{
		"TestNeverPassesOver", "TestRandomHistories", "TestRandomHosts", "TestManyListenersOfOneUser", "TestThirtyThousandListenersOfOneUser",
		"TestOneProcessRefuses", // no process there refuses root
	}},
	{name: "input, long", folder: "inputs/tcplisten", tests: "^(TestStormOfListeners|TestRandomListenEvents|TestAgreesWithSS|TestAnotherBackEndIsABaseline" +
		"|TestChurnLeavesNothingBehind|TestDetailsDuringGathers|TestNamespaces|TestNeverAWrongOwner|TestReloadThatIncludesNamespacesIsABaselineOfThem" +
		"|TestShortLivedListenersBeyondTheLimitAreLogged|TestSteadyAllocations|TestUnitsAndContainers|TestWithoutNetlink" +
		"|TestFirstSeenIsInherited|TestFirstSeenWithoutUserNames|TestViolationsEndWhenTheLastRuleIsRemoved|TestHugeArguments" +
		"|TestNamespaceThatCannotBeListed|TestListenerOfABriefNamespaceIsReported|TestFailedListenIsNotReported" +
		"|TestPortThatListenChoosesIsReported|TestScannedListenerHasItsExactTime|TestListenEventBeforeTheListing" +
		"|TestListenEventsOutliveAReload|TestExactDownTimeOfARestart)$"},
}

// program returns the path of the program in the machine.
func (s *suite) program() string { return "/source/" + s.folder + "/test" }

// arguments returns its arguments. only is a regular expression of the tests to run, or "".
func (s *suite) arguments(only string) []string {
	if s.tests != "" {
		only = s.tests
	}
	return []string{"-test.v", "-test.timeout=20m", fmt.Sprint("-test.short=", s.short), "-test.run=" + only, "-test.skip=" + unsuited}
}

// mayNotRun reports whether a test that the suite has skipped need not run in it.
func (s *suite) mayNotRun(name string) bool {
	return slices.Contains(s.skipped, name) || s.short && slices.ContainsFunc(suites, func(other suite) bool {
		return other.folder == s.folder && !other.short && regexp.MustCompile(other.tests).MatchString(name)
	})
}

// unsuited are the tests that do not suit a machine that has just booted, and is slow: they
// expect events of 500 listeners within one gather, and before settle_boot has passed. The last
// one expects the name that "go test" gives to the test program.
const unsuited = "^(TestEventsFromBeforeAKillAreRecalledOnce|TestActivatedServiceIsNamed)$"

// TestOnKernel boots the machine once and reports the tests of each suite.
func TestOnKernel(t *testing.T) {
	if *kernel == "" {
		t.Skip("no -kernel")
	}
	image, err := filepath.Glob(filepath.Join(*kernel, "boot/vmlinuz-*"))
	if err != nil || len(image) != 1 {
		t.Fatalf("%q, %v; want one boot/vmlinuz-* in %q", image, err, *kernel)
	}
	initramfs := filepath.Join(t.TempDir(), "initramfs")
	if err := writeInitramfs(t, initramfs); err != nil {
		t.Fatal(err)
	}
	out := emulate(t, image[0], initramfs)
	if !strings.Contains(out, "\nBTF of the kernel: yes\n") {
		t.Errorf("the machine did not boot, or its kernel has no BTF:\n%s", out)
	}
	for _, s := range suites {
		t.Run(s.name, func(t *testing.T) {
			_, rest, began := strings.Cut(out, "=== suite "+s.name+"\n")
			text, status, ended := strings.Cut(rest, "=== exit "+s.name+": ")
			status, _, _ = strings.Cut(status, "\n")
			if !began || !ended {
				t.Fatalf("it did not run to its end:\n%s", text)
			}
			if status != "0" {
				t.Errorf("exit %s:\n%s", status, text)
			}
			var skipped []string
			for _, m := range skippedTest.FindAllStringSubmatch(text, -1) {
				skipped = append(skipped, m[1])
			}
			skipped = slices.DeleteFunc(skipped, s.mayNotRun)
			if len(skipped) > 0 && *only == "" {
				t.Errorf("tests %q were skipped:\n%s", skipped, text)
			}
		})
	}
}

// onlyVariable is how the machine's init gets the flag kernel.run.
const onlyVariable = "KERNEL_RUN"

// failedTests returns the names of the tests that have failed.
func failedTests(out string) (names []string) {
	for _, m := range failedTest.FindAllStringSubmatch(out, -1) {
		if !slices.Contains(names, m[1]) {
			names = append(names, m[1])
		}
	}
	return names
}

var failedTest = regexp.MustCompile(`(?m)^--- FAIL: (\S+) `)

// TestFailedTestsAreFound finds tests that failed, and not their subtests.
func TestFailedTestsAreFound(t *testing.T) {
	out := "=== RUN   TestA\n--- PASS: TestA (0.00s)\n--- FAIL: TestB (1.20s)\n    --- FAIL: TestB/one (1.00s)\n    --- FAIL: TestInner (0.10s)\n--- FAIL: TestC (0.00s)\nFAIL\n"
	if diff := cmp.Diff([]string{"TestB", "TestC"}, failedTests(out)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

var skippedTest = regexp.MustCompile(`(?m)^--- SKIP: (\S+)`)

// emulate runs the machine until it powers off, and returns what the suites print. The
// kernel's own messages go to the test's log.
func emulate(t *testing.T, image, initramfs string) string {
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Minute)
	defer cancel()
	console := filepath.Join(t.TempDir(), "console")
	cmd := exec.CommandContext(ctx, program(t, "qemu-system-x86_64"),
		"-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "3072", "-nodefaults", "-display", "none", "-no-reboot",
		"-kernel", image, "-initrd", initramfs, "-append", "console=ttyS0 panic=-1 mitigations=off "+onlyVariable+"="+*only, // unknown ones are init's environment
		"-serial", "file:"+console, "-serial", "stdio")
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimSuffix(lines.Text(), "\r")
		out.WriteString(line + "\n")
		if strings.HasPrefix(line, "=== suite") || strings.HasPrefix(line, "=== exit") || strings.HasPrefix(line, "=== again") || strings.HasPrefix(line, "--- FAIL") {
			t.Logf("after %v: %s", time.Since(began).Round(time.Second), line)
		}
	}
	if err := errors.Join(lines.Err(), cmd.Wait()); err != nil {
		text, _ := os.ReadFile(console)
		t.Errorf("the machine: %v\n%s", err, text)
	}
	return out.String()
}

// program returns the path of a program. If it is not installed, the test is skipped, or fails
// if SOCKWATCH_REQUIRE_SERVERS=1 is set.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return path
	case os.Getenv("SOCKWATCH_REQUIRE_SERVERS") == "1":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
	return ""
}

// writeInitramfs builds the tests and collects what the machine needs.
func writeInitramfs(t *testing.T, path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	a := &archive{w: bufio.NewWriter(file), names: map[string]bool{}}
	for _, dir := range []string{"dev", "proc", "sys", "run", "tmp", "root"} {
		a.folder(dir)
	}
	a.text("etc/passwd", "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")
	a.text("etc/group", "root:x:0:\nnogroup:x:65534:\n")
	build := func(name string, arguments ...string) {
		binary := filepath.Join(t.TempDir(), "test")
		cmd := exec.Command("go", append([]string{"test", "-c", "-o", binary}, arguments...)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64") // static
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", cmd.Args, err, out)
		}
		a.copy(name, binary)
	}
	build("init", "sockwatch/inputs/internal/kerneltest")
	for _, s := range suites {
		if name := strings.TrimPrefix(s.program(), "/"); !a.names[name] {
			build(name, "sockwatch/"+s.folder)
		}
	}
	for _, name := range []string{"jsonlines", "api", "report"} {
		a.copy("source/docs/"+name+".schema.json", "../../../docs/"+name+".schema.json")
	}
	for _, name := range []string{"sh", "sleep", "ip", "ss", "cat"} {
		a.copyProgram(program(t, name))
	}
	// sock_diag is a module there. A module comes after those that it needs.
	for _, name := range []string{"inet_diag", "tcp_diag", "dummy", "veth"} {
		modules, err := filepath.Glob(filepath.Join(*kernel, "lib/modules/*/kernel/*/*/"+name+".ko"))
		if err != nil || len(modules) != 1 {
			return fmt.Errorf("%q, %v; want one module %s", modules, err, name)
		}
		a.copy("modules/"+name+".ko", modules[0])
	}
	a.end()
	return errors.Join(a.err, a.w.Flush())
}

// An archive writes a cpio archive as the kernel takes it
// (Documentation/driver-api/early-userspace/buffer-format.rst). After an error it does nothing.
type archive struct {
	w     *bufio.Writer
	inode int
	names map[string]bool // of what is in it
	err   error
}

const (
	folderMode  = 0o040755
	programMode = 0o100755
)

func (a *archive) entry(name string, mode, size int, content io.Reader) {
	if a.err != nil {
		return
	}
	a.names[name] = true
	a.inode++
	pad := func(n int) string { return strings.Repeat("\x00", -n&3) }
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0, name)
	a.w.WriteString(header + pad(len(header)))
	_, a.err = io.CopyN(a.w, content, int64(size))
	a.w.WriteString(pad(size))
}

func (a *archive) end() { a.entry("TRAILER!!!", 0, 0, strings.NewReader("")) }

// folder adds a folder and those above it, once.
func (a *archive) folder(name string) {
	if name == "." || a.names[name] {
		return
	}
	a.folder(filepath.Dir(name))
	a.entry(name, folderMode, 0, strings.NewReader(""))
}

func (a *archive) text(name, text string) {
	a.folder(filepath.Dir(name))
	a.entry(name, programMode, len(text), strings.NewReader(text))
}

func (a *archive) copy(name, from string) {
	text, err := os.ReadFile(from)
	if err != nil {
		a.err = errors.Join(a.err, err)
		return
	}
	a.text(name, string(text))
}

// copyProgram adds a program of this machine and its shared libraries.
func (a *archive) copyProgram(path string) {
	a.copy("bin/"+filepath.Base(path), path)
	out, err := exec.Command("ldd", path).CombinedOutput()
	if err != nil && !strings.Contains(string(out), "not a dynamic executable") {
		a.err = errors.Join(a.err, fmt.Errorf("ldd %s: %w: %s", path, err, out))
	}
	for _, field := range strings.Fields(string(out)) {
		if name, ok := strings.CutPrefix(field, "/"); ok && !a.names[name] {
			a.copy(name, field)
		}
	}
}
