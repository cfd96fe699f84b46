package packagetest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// booted boots a system and runs inside in it, as a test of the same name. Before the boot it
// copies files to the new root, by name, and runs prepare, shell code that can change the new
// root, $R.
func booted(t *testing.T, prepare string, files map[string]string, inside func(t *testing.T)) {
	t.Helper()
	if os.Getenv("SOCKWATCH_BOOTED") == t.Name() {
		inside(t)
		return
	}
	need(t, "systemctl")
	build(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	if err := os.Mkdir(filepath.Join(out, "files"), 0o755); err != nil {
		t.Fatal(err)
	}
	copyFile(t, self, filepath.Join(out, "files/packagetest"))
	for name, from := range files {
		copyFile(t, from, filepath.Join(out, "files", name))
	}
	prepare = `mv "$R"/out/files/* "$R"` + "\n" + prepare
	command := "SOCKWATCH_BOOTED='" + t.Name() + "' /packagetest -test.v -test.timeout=480s -test.run='^" + t.Name() + "$'"
	if output, err := exec.Command("./boot.sh", prepare, command, out).CombinedOutput(); err != nil {
		for _, name := range []string{"output", "journal", "console"} {
			text, _ := os.ReadFile(filepath.Join(out, name))
			t.Logf("%s:\n%s", name, text)
		}
		t.Fatalf("boot.sh: %v\n%s", err, output)
	}
	text, err := os.ReadFile(filepath.Join(out, "output"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("in the booted system:\n%s", text)
	if strings.Contains(string(text), "--- SKIP") || !strings.Contains(string(text), "--- PASS: "+t.Name()) {
		t.Error("the test did not run in the booted system")
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, text, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// must runs a shell command and returns its output. It ends the test if the command fails.
func must(t *testing.T, command string) string {
	t.Helper()
	output, err := exec.Command("bash", "-c", command).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, output)
	}
	return strings.TrimSpace(string(output))
}

// refused runs a shell command that must fail, and returns its output.
func refused(t *testing.T, command string) string {
	t.Helper()
	output, err := exec.Command("bash", "-c", command).CombinedOutput()
	if err == nil {
		t.Fatalf("%s succeeded, want an error\n%s", command, output)
	}
	return strings.TrimSpace(string(output))
}

// prints checks the output of a shell command, whether it fails or not.
func prints(t *testing.T, command, want string) {
	t.Helper()
	output, _ := exec.Command("bash", "-c", command).CombinedOutput()
	if got := strings.TrimSpace(string(output)); got != want {
		t.Errorf("%s: %q, want %q", command, got, want)
	}
}

// eventually runs a shell command until its output contains a text.
func eventually(t *testing.T, command, want string) {
	t.Helper()
	var output []byte
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		output, _ = exec.Command("bash", "-c", command).CombinedOutput()
		if bytes.Contains(output, []byte(want)) {
			return
		}
	}
	t.Fatalf("%s does not print %q within a minute:\n%s", command, want, output)
}

// write writes a file, and creates its folder.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
