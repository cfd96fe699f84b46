package kubetest

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v3/pkg/strvals"
	apps "k8s.io/api/apps/v1"
)

const document = repository + "/docs/kubernetes.md"

// documentedValues returns the values in docs/kubernetes.md, "doc-NAME" for the block that
// begins with "# NAME.yaml".
func documentedValues(t *testing.T) map[string]string {
	t.Helper()
	blocks := make(map[string]string)
	for _, m := range regexp.MustCompile("(?ms)^```yaml\n# ([a-z]+)\\.yaml\n(.*?)^```$").FindAllStringSubmatch(readFile(t, document), -1) {
		blocks["doc-"+m[1]] = m[2]
	}
	return blocks
}

// The shell scripts of the document run with programs in place of kubectl, helm and skopeo that
// record their arguments. The arguments of helm render, the files that kubectl applies decode, and
// the objects that kubectl names exist.
func TestCommandsOfTheDocument(t *testing.T) {
	dir := t.TempDir()
	deploy, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(deploy, dir+"/deploy"); err != nil {
		t.Fatal(err)
	}
	for name, text := range documentedValues(t) {
		if err := os.WriteFile(dir+"/"+strings.TrimPrefix(name, "doc-")+".yaml", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const stub = "#!/bin/sh\n{ printf %s \"${0##*/}\"; printf ' %s' \"$@\"; echo; } >>\"$CALLS\"\n" +
		"case \" $* \" in *' -f - '*) cat >\"$CALLS.stdin\" ;; esac\n"
	bin := t.TempDir()
	for _, name := range []string{"kubectl", "helm", "skopeo"} {
		if err := os.WriteFile(bin+"/"+name, []byte(stub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	calls := t.TempDir() + "/calls"
	for _, m := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllStringSubmatch(readFile(t, document), -1) {
		cmd := exec.Command("bash", "-euo", "pipefail", "-c", m[1])
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "CALLS="+calls)
		if output, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s%s", err, m[1], output)
		}
	}

	verbs := make(map[string]int)
	for line := range strings.Lines(readFile(t, calls)) {
		args := strings.Fields(line)
		flags, rest := splitFlags(args[1:])
		verbs[args[0]+" "+rest[0]]++
		switch args[0] + " " + rest[0] {
		case "helm upgrade":
			if flags["--namespace"] != "sockwatch" || rest[1] != "sockwatch" || rest[2] != "deploy/helm/sockwatch" {
				t.Errorf("%sother names than the rest of the document has", line)
			}
			values := parseValues(t, "{}")
			if file, ok := flags["--values"]; ok {
				values = parseValues(t, readFile(t, filepath.Join(dir, file)))
			}
			if err := strvals.ParseInto(flags["--set"], values); err != nil {
				t.Errorf("%s%v", line, err)
			}
			objects(t, values)
		case "kubectl apply":
			path := flags["-f"]
			if path == "-" {
				path = calls + ".stdin"
				if image := only[*apps.DaemonSet](t, decode(t, path, readFile(t, path))).Spec.Template.Spec.Containers[0].Image; image != "registry.example.net/team/sockwatch:"+sourceVersion(t) {
					t.Errorf("%sthe image is %s", line, image)
				}
			} else {
				path = filepath.Join(dir, path)
			}
			decode(t, path, readFile(t, path))
		case "kubectl exec", "kubectl rollout":
			if !slices.Contains(rest, "daemonset/sockwatch") || flags["-n"] != "sockwatch" {
				t.Errorf("%sis not about the DaemonSet", line)
			}
			if _, inside, ok := strings.Cut(strings.TrimSpace(line), " -- sockwatch "); ok {
				if output, err := exec.Command(program(t), append(strings.Fields(inside), "--help")...).CombinedOutput(); err != nil {
					t.Errorf("sockwatch %s: %v\n%s", inside, err, output)
				}
			}
		case "skopeo copy":
			if want := "docker://registry.example.org/sockwatch:" + sourceVersion(t); rest[2] != want {
				t.Errorf("%sthe chart pulls %s", line, want)
			}
		}
	}
	want := []string{"helm uninstall", "helm upgrade", "kubectl apply", "kubectl create", "kubectl delete", "kubectl exec", "kubectl label", "kubectl rollout", "skopeo copy"}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(verbs))); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
}

// splitFlags separates the flags of a command line that have a value from the rest.
func splitFlags(args []string) (flags map[string]string, rest []string) {
	flags = make(map[string]string)
	for i := 0; i < len(args); i++ {
		switch args[i] {
		case "-n", "-f", "--namespace", "--set", "--values":
			flags[args[i]] = args[i+1]
			i++
		case "--install", "--all":
		default:
			rest = append(rest, args[i])
		}
	}
	return flags, rest
}

// The web configuration in the document is the one that the test of the pod uses.
func documentedWebConfig(t *testing.T) string {
	t.Helper()
	m := regexp.MustCompile("(?ms)^cat >web.yml <<'EOF'\n(.*?)^EOF$").FindStringSubmatch(readFile(t, document))
	if m == nil {
		t.Fatal("the document has no web.yml")
	}
	return m[1]
}
