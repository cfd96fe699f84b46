package kubetest

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// plain returns the objects of the folder kubernetes.
func plain(t *testing.T) (all []runtime.Object) {
	t.Helper()
	for _, name := range []string{"daemonset.yaml", "podmonitor.yaml"} {
		all = append(all, decode(t, name, readFile(t, filepath.Join(manifests, name)))...)
	}
	return all
}

// The manifests and the chart with its defaults run the same pod with the same configuration.
func TestManifestsAndChartAgree(t *testing.T) {
	values := valueSets(t)["default"]
	values["prometheus"] = map[string]any{"podMonitor": map[string]any{"enabled": true}}
	fromChart, fromManifests := objects(t, values), plain(t)

	want, got := only[*apps.DaemonSet](t, fromManifests).Spec, only[*apps.DaemonSet](t, fromChart).Spec
	for name, value := range want.Template.Labels {
		if got.Template.Labels[name] != value {
			t.Errorf("label %s of the chart's pods is %q, want %q", name, got.Template.Labels[name], value)
		}
	}
	want.Selector, want.Template.ObjectMeta = got.Selector, got.Template.ObjectMeta // Helm adds its own
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("DaemonSet (-manifest +chart):\n%s", diff)
	}
	if diff := cmp.Diff(only[*core.ConfigMap](t, fromManifests).Data, only[*core.ConfigMap](t, fromChart).Data); diff != "" {
		t.Errorf("configuration (-manifest +chart):\n%s", diff)
	}
	wantMonitor, gotMonitor := only[*monitoring.PodMonitor](t, fromManifests).Spec, only[*monitoring.PodMonitor](t, fromChart).Spec
	wantMonitor.Selector = gotMonitor.Selector
	gotMonitor.PodMetricsEndpoints[0].Scheme = nil // http, as without it
	if diff := cmp.Diff(wantMonitor, gotMonitor); diff != "" {
		t.Errorf("PodMonitor (-manifest +chart):\n%s", diff)
	}
}

// Every object of the manifests names the namespace that they create, and every selector matches.
func TestManifestsBelongTogether(t *testing.T) {
	all := plain(t)
	var kinds []string
	for _, object := range all {
		o := object.(interface {
			GetName() string
			GetNamespace() string
		})
		kind := object.GetObjectKind().GroupVersionKind().Kind
		kinds = append(kinds, kind+" "+o.GetNamespace()+"/"+o.GetName())
	}
	want := []string{"Namespace /sockwatch", "ServiceAccount sockwatch/sockwatch", "ConfigMap sockwatch/sockwatch", "DaemonSet sockwatch/sockwatch", "PodMonitor sockwatch/sockwatch"}
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
	daemonSet := only[*apps.DaemonSet](t, all)
	labels := map[string]string{"app.kubernetes.io/name": "sockwatch"}
	for what, got := range map[string]map[string]string{
		"selector of the DaemonSet":  daemonSet.Spec.Selector.MatchLabels,
		"labels of its pods":         daemonSet.Spec.Template.Labels,
		"selector of the PodMonitor": only[*monitoring.PodMonitor](t, all).Spec.Selector.MatchLabels,
	} {
		if diff := cmp.Diff(labels, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
}

// The namespace has the level that it needs, and its comment gives the reasons: what each lower
// level refuses.
func TestNamespaceNeedsThePrivilegedLevel(t *testing.T) {
	all := plain(t)
	want := map[string]string{
		"pod-security.kubernetes.io/enforce": "privileged",
		"pod-security.kubernetes.io/audit":   "privileged",
		"pod-security.kubernetes.io/warn":    "privileged",
	}
	if diff := cmp.Diff(want, only[*core.Namespace](t, all).Labels); diff != "" {
		t.Errorf("labels of the namespace (-want +got):\n%s", diff)
	}
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	template := only[*apps.DaemonSet](t, all).Spec.Template
	version := api.LevelVersion{Level: api.LevelBaseline, Version: api.LatestVersion()}
	var refused []string
	for _, result := range evaluator.EvaluatePod(version, &template.ObjectMeta, &template.Spec) {
		if !result.Allowed {
			refused = append(refused, result.ForbiddenReason)
		}
	}
	slices.Sort(refused)
	wantRefused := []string{"forbidden AppArmor profile", "host namespaces", "hostPath volumes", "non-default capabilities"}
	if diff := cmp.Diff(wantRefused, refused); diff != "" {
		t.Errorf("what the level baseline refuses (-want +got):\n%s", diff)
	}
}

// Every configuration loads at its path in the pod, with the pod's variables.
func TestConfigurationsPassCheck(t *testing.T) {
	pods := map[string][]runtime.Object{"manifests": plain(t)}
	for name, values := range valueSets(t) {
		pods[name] = objects(t, values)
	}
	for name, all := range pods {
		t.Run(name, func(t *testing.T) {
			template := only[*apps.DaemonSet](t, all).Spec.Template
			files := configuration(t, template.Spec, all)
			dir := volume(t, files)
			// the test uses another folder than the pod
			text := strings.ReplaceAll(files["sockwatch.toml"], `"/etc/sockwatch/`, `"`+dir+"/")
			if err := os.WriteFile(dir+"/sockwatch.toml", []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			args := []string{"check", "--config", dir + "/sockwatch.toml"}
			more, err := filepath.Glob(dir + "/sockwatch.d/*.toml")
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range more {
				args = append(args, "--config", path)
			}
			cmd := exec.Command(program(t), args...)
			cmd.Env = environment(template.Spec.Containers[0].Env)
			output, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(output), "ok: inputs.tcp_listen") {
				t.Errorf("sockwatch check: %v\n%s", err, output)
			}
		})
	}
}

// configuration returns the files of the volume "config", by their paths in it.
func configuration(t *testing.T, spec core.PodSpec, all []runtime.Object) map[string]string {
	t.Helper()
	i := slices.IndexFunc(spec.Volumes, func(v core.Volume) bool { return v.Name == "config" })
	if i < 0 || spec.Volumes[i].ConfigMap == nil {
		t.Fatal("no ConfigMap with the configuration")
	}
	source := spec.Volumes[i].ConfigMap
	for _, object := range all {
		configMap, ok := object.(*core.ConfigMap)
		if !ok || configMap.Name != source.Name {
			continue
		}
		if source.Items == nil {
			return configMap.Data
		}
		files := make(map[string]string)
		for _, item := range source.Items {
			text, ok := configMap.Data[item.Key]
			if !ok {
				t.Fatalf("ConfigMap %s has no key %q", configMap.Name, item.Key)
			}
			files[item.Path] = text
		}
		if len(files) != len(configMap.Data) {
			t.Errorf("%d of %d files of the ConfigMap are mounted", len(files), len(configMap.Data))
		}
		return files
	}
	t.Fatalf("no ConfigMap %q", source.Name)
	return nil
}

// volume creates a directory of files as the kubelet does: links into a hidden directory.
func volume(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	fill(t, dir, files)
	for name := range files {
		top, _, _ := strings.Cut(name, "/")
		if err := os.Symlink("..data/"+top, filepath.Join(dir, top)); err != nil && !errors.Is(err, fs.ErrExist) {
			t.Fatal(err)
		}
	}
	return dir
}

// fill replaces the files of a volume atomically, as the kubelet does.
func fill(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	hidden, err := os.MkdirTemp(dir, "..")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(hidden, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		path := filepath.Join(hidden, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Base(hidden), dir+"/..next"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir+"/..next", dir+"/..data"); err != nil {
		t.Fatal(err)
	}
}

// environment returns the environment of a container on a node with the name node-1 and the
// address 127.0.0.1.
func environment(variables []core.EnvVar) []string {
	fields := map[string]string{"spec.nodeName": "node-1", "status.hostIP": "127.0.0.1"}
	values := make(map[string]string)
	var list []string
	for _, v := range variables {
		value := v.Value
		if v.ValueFrom != nil {
			value = fields[v.ValueFrom.FieldRef.FieldPath]
		}
		for name, other := range values {
			value = strings.ReplaceAll(value, "$("+name+")", other)
		}
		values[v.Name] = value
		list = append(list, v.Name+"="+value)
	}
	return list
}

// The image's tag and the chart have the version of the program.
func TestVersionsAgree(t *testing.T) {
	version := sourceVersion(t)
	for path, keys := range map[string][]string{
		chartDir + "/Chart.yaml":      {"version: ", "appVersion: "},
		manifests + "/daemonset.yaml": {"          image: registry.example.org/sockwatch:"},
		document:                      {"skopeo copy --all oci-archive:sockwatch-oci.tar docker://registry.example.org/sockwatch:"},
	} {
		lines := strings.SplitAfter(readFile(t, path), "\n")
		for i, line := range lines {
			for _, key := range keys {
				if strings.HasPrefix(line, key) {
					lines[i] = key + version + "\n"
				}
			}
		}
		generated(t, path, strings.Join(lines, ""))
	}
}
