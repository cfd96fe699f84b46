// Package kubetest tests the support for Kubernetes: the manifests, the Helm chart and
// docs/kubernetes.md. It is a separate module because Helm and the types of Kubernetes are large.
package kubetest

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the generated files instead of comparing them")

const (
	repository = "../.."
	manifests  = "../kubernetes"
	chartDir   = "../helm/sockwatch"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "contain":
			os.Exit(contain(os.Args[2]))
		case "listen":
			os.Exit(listen(os.Args[2]))
		case "crowd":
			os.Exit(crowd(os.Args[2]))
		case "open":
			os.Exit(open(os.Args[2], os.Args[3]))
		case "node":
			os.Exit(node(os.Args[2]))
		}
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "kubetest-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	programPath = filepath.Join(dir, "sockwatch")
	return m.Run()
}

// programPath is the path of the program that buildProgram builds.
var programPath string

// buildProgram builds sockwatch as for the image: statically linked.
var buildProgram = sync.OnceValue(func() error {
	cmd := exec.Command("go", "build", "-o", programPath, "./cmd/sockwatch")
	cmd.Dir = repository
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, output)
	}
	return nil
})

// program returns the path of sockwatch, built from this tree.
func program(t *testing.T) string {
	t.Helper()
	if err := buildProgram(); err != nil {
		t.Fatal(err)
	}
	return programPath
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// generated compares a file with its expected content, or with -update writes it.
func generated(t *testing.T, path, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, readFile(t, path)); diff != "" {
		t.Errorf("%s is not current; go test -update writes it (-want +got):\n%s", path, diff)
	}
}

// between replaces the text between two lines.
func between(t *testing.T, text, begin, end, middle string) string {
	t.Helper()
	before, rest, ok := strings.Cut(text, begin+"\n")
	_, after, ok2 := strings.Cut(rest, end+"\n")
	if !ok || !ok2 {
		t.Fatalf("no lines %q and %q", begin, end)
	}
	return before + begin + "\n" + middle + end + "\n" + after
}

// sourceVersion returns the version of the program.
func sourceVersion(t *testing.T) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^const sourceVersion = "(.*)"$`).FindStringSubmatch(readFile(t, repository+"/cmd/sockwatch/version.go"))
	if m == nil {
		t.Fatal("cmd/sockwatch/version.go has no sourceVersion")
	}
	return m[1]
}
