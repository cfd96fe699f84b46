package kerneltest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// boot is the init of the machine: it runs the suites, prints to the second serial line, and
// powers off.
func boot() {
	if err := run(); err != nil {
		fmt.Println("init:", err) // on the console
	}
	unix.Sync()
	fmt.Println("init: power off:", unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
	select {}
}

func run() error {
	var errs []error
	for _, m := range []struct{ kind, on string }{
		{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}, {"cgroup2", "/sys/fs/cgroup"}, {"tmpfs", "/run"}, {"tmpfs", "/tmp"},
	} {
		if err := unix.Mount(m.kind, m.on, m.kind, 0, ""); err != nil {
			errs = append(errs, fmt.Errorf("mount %s: %w", m.on, err))
		}
	}
	line, err := os.OpenFile("/dev/ttyS1", os.O_WRONLY, 0)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	defer line.Close()
	for _, name := range []string{"inet_diag", "tcp_diag", "dummy", "veth"} {
		errs = append(errs, load("/modules/"+name+".ko"))
	}
	files := &unix.Rlimit{Cur: 1 << 19, Max: 1 << 19}
	errs = append(errs, unix.Setrlimit(unix.RLIMIT_NOFILE, files))
	os.Setenv("PATH", "/bin")
	os.Setenv("HOME", "/root")
	errs = append(errs, exec.Command("ip", "link", "set", "lo", "up").Run())
	version, err := os.ReadFile("/proc/version")
	fmt.Fprintf(line, "\n%s", version)
	errs = append(errs, err)
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err == nil {
		fmt.Fprintln(line, "BTF of the kernel: yes")
	}
	for _, s := range suites {
		fmt.Fprintf(line, "=== suite %s\n", s.name)
		code, out, err := s.run(line, s.arguments(os.Getenv(onlyVariable)))
		// Beside much other work the machine may stand still for longer than a test, or the
		// input, waits. So those that fail get a second chance, once.
		if failed := failedTests(out); err == nil && code == 1 && len(failed) > 0 {
			fmt.Fprintf(line, "=== again: %s\n", strings.Join(failed, " "))
			code, _, err = s.run(line, append(s.arguments(""), "-test.run=^("+strings.Join(failed, "|")+")$"))
		}
		errs = append(errs, err)
		fmt.Fprintf(line, "=== exit %s: %d\n", s.name, code)
	}
	err = errors.Join(errs...)
	if err != nil {
		fmt.Fprintln(line, "init:", err)
	}
	return err
}

// run runs the program of the suite, and also returns its output.
func (s *suite) run(line io.Writer, arguments []string) (code int, out string, err error) {
	var b strings.Builder
	cmd := exec.Command(s.program(), arguments...)
	cmd.Dir, cmd.Stdout = filepath.Dir(s.program()), io.MultiWriter(line, &b)
	cmd.Stderr = cmd.Stdout
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = nil
	}
	return cmd.ProcessState.ExitCode(), b.String(), err
}

// load loads a kernel module.
func load(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.FinitModule(int(file.Fd()), "", 0); err != nil {
		return fmt.Errorf("load %s: %w", path, err)
	}
	return nil
}
