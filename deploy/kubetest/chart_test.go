package kubetest

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	"helm.sh/helm/v3/pkg/releaseutil"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// valueSets returns the sets of values with which the tests render the chart, by name: those in the
// folder ci, where Helm's own tools look for them, and the examples in docs/kubernetes.md.
func valueSets(t *testing.T) map[string]chartutil.Values {
	t.Helper()
	sets := make(map[string]chartutil.Values)
	paths, err := filepath.Glob(chartDir + "/ci/*-values.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("%d files of values, %v", len(paths), err)
	}
	for _, path := range paths {
		sets[strings.TrimSuffix(filepath.Base(path), "-values.yaml")] = parseValues(t, readFile(t, path))
	}
	for name, text := range documentedValues(t) {
		values := parseValues(t, text)
		values["image"] = map[string]any{"registry": "registry.example.org"}
		sets[name] = values
	}
	return sets
}

func parseValues(t *testing.T, text string) chartutil.Values {
	t.Helper()
	values, err := chartutil.ReadValues([]byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return values
}

// loadChart returns the chart. Small files replace the rules and the dashboard, which the chart takes
// from other folders.
func loadChart(t *testing.T) *chart.Chart {
	t.Helper()
	c, err := loader.Load(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	c.Files = slices.DeleteFunc(c.Files, func(f *chart.File) bool { return strings.HasPrefix(f.Name, "files/") })
	for _, name := range []string{"rules.yml", "sockwatch.json"} {
		c.Files = append(c.Files, &chart.File{Name: "files/" + name, Data: []byte(readFile(t, "testdata/"+name))})
	}
	return c
}

// render does what "helm template sockwatch --namespace sockwatch" does. It returns the rendered
// files by their names in the folder templates.
func render(c *chart.Chart, values chartutil.Values) (map[string]string, error) {
	capabilities := chartutil.DefaultCapabilities.Copy()
	capabilities.KubeVersion = *oldest()
	options := chartutil.ReleaseOptions{Name: "sockwatch", Namespace: "sockwatch", IsInstall: true, Revision: 1}
	all, err := chartutil.ToRenderValues(c, values, options, capabilities)
	if err != nil {
		return nil, err
	}
	files, err := engine.Render(c, all)
	if err != nil {
		return nil, err
	}
	named := make(map[string]string)
	for path, text := range files {
		if !strings.HasSuffix(path, ".tpl") && strings.TrimSpace(text) != "" {
			named[strings.TrimPrefix(path, "sockwatch/templates/")] = text
		}
	}
	return named, nil
}

// oldest returns the oldest version of Kubernetes that the chart is for.
func oldest() *chartutil.KubeVersion {
	return &chartutil.KubeVersion{Version: "v1.30.0", Major: "1", Minor: "30"}
}

// objects renders the chart and decodes the objects.
func objects(t *testing.T, values chartutil.Values) []runtime.Object {
	t.Helper()
	files, err := render(loadChart(t), values)
	if err != nil {
		t.Fatal(err)
	}
	var all []runtime.Object
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if name != "NOTES.txt" {
			all = append(all, decode(t, name, files[name])...)
		}
	}
	return all
}

// decode decodes the objects of a file. An unknown field is an error, and so is a
// repeated one.
func decode(t *testing.T, name, text string) (objects []runtime.Object) {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{core.AddToScheme, apps.AddToScheme, monitoring.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	documents := releaseutil.SplitManifests(text)
	keys := slices.Collect(maps.Keys(documents))
	slices.SortFunc(keys, func(a, b string) int { return strings.Compare(pad(a), pad(b)) })
	for _, key := range keys {
		object, _, err := decoder.Decode([]byte(documents[key]), nil, nil)
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, documents[key])
		}
		objects = append(objects, object)
	}
	return objects
}

// pad makes the keys of SplitManifests, manifest-0 to manifest-10, sort by number.
func pad(key string) string {
	prefix, number, _ := strings.Cut(key, "-")
	return prefix + strings.Repeat("0", 4-len(number)) + number
}

// only returns the only object of a type.
func only[T runtime.Object](t *testing.T, objects []runtime.Object) T {
	t.Helper()
	var found []T
	for _, object := range objects {
		if o, ok := object.(T); ok {
			found = append(found, o)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d objects of the type %T, want one", len(found), *new(T))
	}
	return found[0]
}

func TestHelmLintFindsNothing(t *testing.T) {
	sets := valueSets(t)
	sets["none"] = chartutil.Values{} // as "helm lint deploy/helm/sockwatch"
	for name, values := range sets {
		t.Run(name, func(t *testing.T) {
			linter := lint.AllWithKubeVersion(chartDir, values, "sockwatch", oldest())
			for _, m := range linter.Messages {
				if m.Severity > support.InfoSev {
					t.Error(m)
				}
			}
		})
	}
}

// Every object decodes strictly, has a name, and is in a namespace.
func TestChartRendersWhatItsValuesAskFor(t *testing.T) {
	base := []string{"ConfigMap/sockwatch", "DaemonSet/sockwatch", "Service/sockwatch", "ServiceAccount/sockwatch"}
	want := map[string][]string{
		"default":     base,
		"other-user":  base,
		"full":        {"ConfigMap/agent", "ConfigMap/agent-dashboard", "DaemonSet/agent", "PodMonitor/agent", "PrometheusRule/agent", "Service/agent", "ServiceAccount/listeners"},
		"minimal":     {"ConfigMap/sockwatch", "DaemonSet/sockwatch"},
		"web":         append(base[:2:2], "PodMonitor/sockwatch", "Service/sockwatch", "ServiceAccount/sockwatch"),
		"doc-bpf":     base,
		"doc-monitor": {"ConfigMap/sockwatch", "ConfigMap/sockwatch-dashboard", "DaemonSet/sockwatch", "PodMonitor/sockwatch", "PrometheusRule/sockwatch", "Service/sockwatch", "ServiceAccount/sockwatch"},
		"doc-output":  base,
		"doc-pods":    base,
		"doc-rules":   base,
		"doc-user":    base,
		"doc-web":     append(base[:2:2], "PodMonitor/sockwatch", "Service/sockwatch", "ServiceAccount/sockwatch"),
	}
	got := make(map[string][]string)
	for name, values := range valueSets(t) {
		for _, object := range objects(t, values) {
			o := object.(interface {
				GetName() string
				GetNamespace() string
			})
			kind := object.GetObjectKind().GroupVersionKind().Kind
			got[name] = append(got[name], kind+"/"+o.GetName())
			if o.GetNamespace() == "" {
				t.Errorf("%s: %s %s has no namespace", name, kind, o.GetName())
			}
		}
		slices.Sort(got[name])
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("objects by set of values (-want +got):\n%s", diff)
	}
}

// The chart's security rests on these fields of the pod.
func TestPodHoldsTwoCapabilitiesAndNothingElse(t *testing.T) {
	spec := only[*apps.DaemonSet](t, objects(t, valueSets(t)["default"])).Spec.Template.Spec
	if !spec.HostNetwork || !spec.HostPID || spec.HostIPC {
		t.Errorf("hostNetwork %v, hostPID %v, hostIPC %v; want the first two", spec.HostNetwork, spec.HostPID, spec.HostIPC)
	}
	if len(spec.InitContainers) != 0 || len(spec.Containers) != 1 {
		t.Fatalf("%d init containers and %d containers, want one container", len(spec.InitContainers), len(spec.Containers))
	}
	wantPod := &core.PodSecurityContext{
		RunAsUser: new(int64(0)), RunAsGroup: new(int64(0)),
		SeccompProfile:  &core.SeccompProfile{Type: core.SeccompProfileTypeRuntimeDefault},
		AppArmorProfile: &core.AppArmorProfile{Type: core.AppArmorProfileTypeUnconfined},
	}
	if diff := cmp.Diff(wantPod, spec.SecurityContext); diff != "" {
		t.Errorf("security context of the pod (-want +got):\n%s", diff)
	}
	wantContainer := &core.SecurityContext{
		AllowPrivilegeEscalation: new(false),
		ReadOnlyRootFilesystem:   new(true),
		Capabilities:             &core.Capabilities{Add: []core.Capability{"DAC_READ_SEARCH", "SYS_PTRACE"}, Drop: []core.Capability{"ALL"}},
	}
	if diff := cmp.Diff(wantContainer, spec.Containers[0].SecurityContext); diff != "" {
		t.Errorf("security context of the container (-want +got):\n%s", diff)
	}
	wantMounts := []core.VolumeMount{
		{Name: "config", MountPath: "/etc/sockwatch", ReadOnly: true},
		{Name: "proc", MountPath: "/host/proc", ReadOnly: true},
		{Name: "state", MountPath: "/var/lib/sockwatch"},
	}
	if diff := cmp.Diff(wantMounts, spec.Containers[0].VolumeMounts); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
	if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
		t.Error("the pod gets a token of the API server")
	}
	if diff := cmp.Diff([]core.Toleration{{Operator: core.TolerationOpExists}}, spec.Tolerations); diff != "" {
		t.Errorf("tolerations (-want +got):\n%s", diff)
	}
}

// Each value sets the right field.
func TestValuesReachThePod(t *testing.T) {
	all := objects(t, valueSets(t)["full"])
	daemonSet := only[*apps.DaemonSet](t, all)
	spec := daemonSet.Spec.Template.Spec
	container := spec.Containers[0]
	type pod struct {
		Image              string
		PullPolicy         core.PullPolicy
		PullSecrets        []core.LocalObjectReference
		Args               []string
		Env                []core.EnvVar
		Ports              []core.ContainerPort
		PriorityClass      string
		ServiceAccount     string
		NodeSelector       map[string]string
		Tolerations        []core.Toleration
		GracePeriod        *int64
		MaxUnavailable     *intstr.IntOrString
		Annotation, Label  string
		LastVolume         core.Volume
		LastMount          core.VolumeMount
		StatePath          string
		Memory             string
		AffinityTermsCount int
	}
	field := func(path string) *core.EnvVarSource {
		return &core.EnvVarSource{FieldRef: &core.ObjectFieldSelector{FieldPath: path}}
	}
	want := pod{
		Image:         "registry.example.org/team/sockwatch@sha256:" + strings.Repeat("0123456789abcdef", 4),
		PullPolicy:    core.PullAlways,
		PullSecrets:   []core.LocalObjectReference{{Name: "registry"}},
		Args:          []string{"run", "--config", "/etc/sockwatch/sockwatch.toml"},
		PriorityClass: "system-node-critical", ServiceAccount: "listeners",
		Env: []core.EnvVar{
			{Name: "NODE_NAME", ValueFrom: field("spec.nodeName")},
			{Name: "HOST_IP", ValueFrom: field("status.hostIP")},
			{Name: "HOST_PROC", Value: "/host/proc"},
			{Name: "SOCKWATCH_LISTEN", Value: ":9188"},
			{Name: "CLUSTER", Value: "fra1"},
			{Name: "SHARDS", Value: "3000000"},
		},
		Ports:          []core.ContainerPort{{Name: "web", ContainerPort: 9188, Protocol: core.ProtocolTCP}},
		NodeSelector:   map[string]string{"kubernetes.io/os": "linux", "pool": "edge"},
		Tolerations:    []core.Toleration{{Key: "edge", Operator: core.TolerationOpEqual, Value: "yes", Effect: core.TaintEffectNoSchedule}},
		GracePeriod:    new(int64(60)),
		MaxUnavailable: new(intstr.FromInt32(2)),
		Annotation:     "true", Label: "hosts",
		LastVolume:         core.Volume{Name: "token", VolumeSource: core.VolumeSource{Secret: &core.SecretVolumeSource{SecretName: "influxdb", DefaultMode: new(int32(0o440))}}},
		LastMount:          core.VolumeMount{Name: "token", MountPath: "/run/secrets/influxdb", ReadOnly: true},
		StatePath:          "/srv/sockwatch",
		Memory:             "256Mi",
		AffinityTermsCount: 2,
	}
	got := pod{
		Image: container.Image, PullPolicy: container.ImagePullPolicy, PullSecrets: spec.ImagePullSecrets,
		Args: container.Args, Env: container.Env, Ports: container.Ports, PriorityClass: spec.PriorityClassName,
		ServiceAccount: spec.ServiceAccountName, NodeSelector: spec.NodeSelector, Tolerations: spec.Tolerations,
		GracePeriod: spec.TerminationGracePeriodSeconds, MaxUnavailable: daemonSet.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable,
		Annotation: daemonSet.Spec.Template.Annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"],
		Label:      daemonSet.Spec.Template.Labels["team"],
		LastVolume: spec.Volumes[len(spec.Volumes)-1], LastMount: container.VolumeMounts[len(container.VolumeMounts)-1],
		Memory:             container.Resources.Limits.Memory().String(),
		AffinityTermsCount: len(spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms),
	}
	for _, v := range spec.Volumes {
		if v.Name == "state" && v.HostPath != nil {
			got.StatePath = v.HostPath.Path
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pod (-want +got):\n%s", diff)
	}
	wantSelector := map[string]string{"app.kubernetes.io/name": "sockwatch", "app.kubernetes.io/instance": "sockwatch"}
	for key, value := range wantSelector {
		if got := daemonSet.Spec.Template.Labels[key]; got != value {
			t.Errorf("label %s of the pods is %q, want %q", key, got, value)
		}
	}
	service := only[*core.Service](t, all)
	wantService := core.ServiceSpec{
		ClusterIP: core.ClusterIPNone, Selector: wantSelector,
		Ports: []core.ServicePort{{Name: "web", Port: 9188, TargetPort: intstr.FromString("web"), Protocol: core.ProtocolTCP}},
	}
	if diff := cmp.Diff(wantService, service.Spec); diff != "" {
		t.Errorf("service (-want +got):\n%s", diff)
	}
}

// Only a change of the configuration replaces pods.
func TestPodsAreReplacedWhenTheConfigurationChanges(t *testing.T) {
	checksum := func(values string) string {
		return only[*apps.DaemonSet](t, objects(t, parseValues(t, "image: {registry: r}\n"+values))).Spec.Template.Annotations["checksum/config"]
	}
	first := checksum("")
	if first == "" || first == checksum("extraConfig: {a.toml: '# x'}") || first == checksum("config: '[[inputs.tcp_listen]]'") {
		t.Errorf("checksum %q does not depend on the configuration", first)
	}
	if again := checksum("podLabels: {a: b}"); again != first {
		t.Errorf("checksum %q, then %q, of one configuration", first, again)
	}
}

// With a web configuration the probes cannot request a page: the kubelet has no password.
func TestProbes(t *testing.T) {
	get := func(path string) core.ProbeHandler {
		return core.ProbeHandler{HTTPGet: &core.HTTPGetAction{Path: path, Port: intstr.FromString("metrics")}}
	}
	connect := core.ProbeHandler{TCPSocket: &core.TCPSocketAction{Port: intstr.FromString("metrics")}}
	for _, test := range []struct {
		values              string
		wantLive, wantReady core.ProbeHandler
	}{
		{values: "default", wantLive: get("/-/healthy"), wantReady: get("/-/ready")},
		{values: "web", wantLive: connect, wantReady: connect},
	} {
		container := only[*apps.DaemonSet](t, objects(t, valueSets(t)[test.values])).Spec.Template.Spec.Containers[0]
		if diff := cmp.Diff(&core.Probe{ProbeHandler: test.wantLive, PeriodSeconds: 20, TimeoutSeconds: 5}, container.LivenessProbe); diff != "" {
			t.Errorf("%s: liveness (-want +got):\n%s", test.values, diff)
		}
		if diff := cmp.Diff(&core.Probe{ProbeHandler: test.wantReady, TimeoutSeconds: 5}, container.ReadinessProbe); diff != "" {
			t.Errorf("%s: readiness (-want +got):\n%s", test.values, diff)
		}
	}
}

// The labels "pod" and "container" of a series are those of the listener's owner. Prometheus would
// rename them if the target had labels of these names.
func TestPodMonitorLeavesTheLabelsOfOwnersAlone(t *testing.T) {
	all := objects(t, valueSets(t)["web"])
	monitor := only[*monitoring.PodMonitor](t, all)
	want := monitoring.PodMonitorSpec{
		PodMetricsEndpoints: []monitoring.PodMetricsEndpoint{{
			Port: new("metrics"), Path: "/metrics", Scheme: new(monitoring.Scheme("https")), Interval: "30s", ScrapeTimeout: "10s",
			HTTPConfigWithProxy: monitor.Spec.PodMetricsEndpoints[0].HTTPConfigWithProxy, // below
			RelabelConfigs: []monitoring.RelabelConfig{
				{Action: "labeldrop", Regex: "pod|container"},
				{Action: "replace", SourceLabels: []monitoring.LabelName{"__meta_kubernetes_pod_node_name"}, TargetLabel: "node"},
				{Action: "replace", Replacement: new("sockwatch"), TargetLabel: "job"}, // whatever the chart's name is: the rules select it
				{Action: "replace", Replacement: new("fra1"), TargetLabel: "cluster"},
			},
		}},
	}
	want.Selector.MatchLabels = map[string]string{"app.kubernetes.io/name": "sockwatch", "app.kubernetes.io/instance": "sockwatch"}
	if diff := cmp.Diff(want, monitor.Spec); diff != "" {
		t.Errorf("PodMonitor (-want +got):\n%s", diff)
	}
	full := only[*monitoring.PodMonitor](t, objects(t, valueSets(t)["full"]))
	if diff := cmp.Diff([]string{"sockwatch"}, full.Spec.NamespaceSelector.MatchNames); diff != "" || full.Namespace != "monitoring" || full.Labels["release"] != "prometheus" {
		t.Errorf("namespace %q, labels %v; namespaces to look in (-want +got):\n%s", full.Namespace, full.Labels, diff)
	}
}

// The alerts of the PrometheusRule are those of the rule file for Prometheus, templates included.
func TestRulesAndDashboardAreCarriedUnchanged(t *testing.T) {
	all := objects(t, valueSets(t)["full"])
	want := []monitoring.RuleGroup{{Name: "sockwatch", Rules: []monitoring.Rule{{
		Alert: "UnexpectedPublicListener", Expr: intstr.FromString(`tcp_listen_sockets{exposure="public", process!~"sshd|nginx"}`), For: new(monitoring.Duration("5m")),
		Annotations: map[string]string{"summary": "{{ $labels.process }} ({{ $labels.user }}) listens on {{ $labels.address }}:{{ $labels.port }}"},
	}}}}
	if diff := cmp.Diff(want, only[*monitoring.PrometheusRule](t, all).Spec.Groups); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	for _, object := range all {
		if dashboard, ok := object.(*core.ConfigMap); ok && dashboard.Name == "agent-dashboard" {
			if diff := cmp.Diff(map[string]string{"sockwatch.json": strings.TrimSpace(readFile(t, "testdata/sockwatch.json"))}, dashboard.Data); diff != "" {
				t.Errorf("dashboard (-want +got):\n%s", diff)
			}
			if dashboard.Labels["grafana_dashboard"] != "1" || dashboard.Annotations["grafana_folder"] != "Hosts" {
				t.Errorf("labels %v, annotations %v", dashboard.Labels, dashboard.Annotations)
			}
		}
	}
}

// Helm reads nothing outside a chart, so the chart holds copies, which -update writes. Their objects
// decode as strictly as all others.
func TestCopiesOfRulesAndDashboardAreCurrent(t *testing.T) {
	for source, copied := range map[string]string{
		"../prometheus/rules.yml":   chartDir + "/files/rules.yml",
		"../grafana/sockwatch.json": chartDir + "/files/sockwatch.json",
	} {
		if _, err := os.Stat(source); os.IsNotExist(err) {
			if _, err := os.Stat(copied); !os.IsNotExist(err) {
				t.Errorf("%s is a copy of %s, which does not exist (%v)", copied, source, err)
			}
			t.Skipf("%v: nothing to copy yet", err)
		}
		text := readFile(t, source)
		if len(text) > 900<<10 {
			t.Errorf("%s has %d bytes; an object of Kubernetes has at most 1 MiB", source, len(text))
		}
		if *update {
			if err := os.MkdirAll(filepath.Dir(copied), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		generated(t, copied, text)
	}
	c, err := loader.Load(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	files, err := render(c, valueSets(t)["doc-monitor"])
	if err != nil {
		t.Fatal(err)
	}
	if groups := only[*monitoring.PrometheusRule](t, decode(t, "rules", files["prometheusrule.yaml"])).Spec.Groups; len(groups) == 0 {
		t.Error("the PrometheusRule has no groups")
	}
	if dashboard := only[*core.ConfigMap](t, decode(t, "dashboard", files["dashboard.yaml"])).Data["sockwatch.json"]; !json.Valid([]byte(dashboard)) {
		t.Error("the dashboard is not JSON")
	}
}

func TestMistakesAreErrors(t *testing.T) {
	for _, test := range []struct {
		name, values string
		want         string
	}{
		{name: "no registry", values: "{}", want: "image.registry: name the registry that holds the image, as in --set image.registry=registry.example.org"},
		{name: "value that does not exist", values: "toleration: []", want: "additional properties 'toleration' not allowed"},
		{name: "value of another chart", values: "kubeRBACProxy: {enabled: true}", want: "additional properties 'kubeRBACProxy' not allowed"},
		{name: "value inside another", values: "image: {pullpolicy: Always}", want: "additional properties 'pullpolicy' not allowed"},
		{name: "field of the security context", values: "containerSecurityContext: {readOnlyRootFileSystem: true}", want: "additional properties 'readOnlyRootFileSystem' not allowed"},
		{name: "field of the capabilities", values: "containerSecurityContext: {capabilities: {dropp: [ALL]}}", want: "additional properties 'dropp' not allowed"},
		{name: "field of the pod's security context", values: "securityContext: {runAsuser: 1}", want: "additional properties 'runAsuser' not allowed"},
		{name: "field of a toleration", values: "tolerations: [{op: Exists}]", want: "additional properties 'op' not allowed"},
		{name: "kind of resources", values: "resources: {limit: {memory: 1Gi}}", want: "additional properties 'limit' not allowed"},
		{name: "field of the affinity", values: "affinity: {nodeAffinty: {}}", want: "additional properties 'nodeAffinty' not allowed"},
		{name: "field of the PodMonitor", values: "prometheus: {podMonitor: {enable: true}}", want: "additional properties 'enable' not allowed"},
		{name: "field of a relabeling", values: "prometheus: {podMonitor: {relabelings: [{source_labels: [a]}]}}", want: "additional properties 'source_labels' not allowed"},
		{name: "field of the TLS settings", values: "prometheus: {podMonitor: {tlsConfig: {insecure: true}}}", want: "additional properties 'insecure' not allowed"},
		{name: "port that is text", values: `service: {port: "8088"}`, want: "at '/service/port': got string, want integer"},
		{name: "port out of range", values: "service: {port: 70000}", want: "at '/service/port': maximum: got 70,000, want 65,535"},
		{name: "digest without its kind", values: "image: {digest: 0123}", want: "at '/image/digest'"},
		{name: "duration without a unit", values: `prometheus: {podMonitor: {interval: "30"}}`, want: "at '/prometheus/podMonitor/interval'"},
		{name: "configuration that is a map", values: "config: {agent: {}}", want: "at '/config': got object, want string"},
		{name: "additional file without its ending", values: "extraConfig: {influxdb: x}", want: "at '/extraConfig': additional properties 'influxdb' not allowed"},
		{name: "additional file in place of the first", values: "extraConfig: {sockwatch.toml: x}", want: "at '/extraConfig/sockwatch.toml': false schema"},
		{name: "additional file in place of rules", values: "extraConfig: {expect.d_a.toml: x}", want: "at '/extraConfig/expect.d_a.toml': false schema"},
		{name: "web configuration that nothing uses", values: "{webConfig: {secretName: a}, config: '[[inputs.tcp_listen]]'}",
			want: `webConfig.secretName: nothing would use it: config needs web_config_file = "${SOCKWATCH_WEB_CONFIG:-}" in [[outputs.prometheus]]`},
		{name: "file of rules without its ending", values: "expect: {nodes: x}", want: "at '/expect': additional properties 'nodes' not allowed"},
		{name: "variable that the chart sets", values: "env: {HOST_PROC: /proc}", want: "at '/env/HOST_PROC': false schema"},
		{name: "variable that is a number", values: "env: {SHARDS: 3000000}", want: "at '/env/SHARDS': got number, want string"}, // would be 3e+06
		{name: "relative state directory", values: "state: {hostPath: var/lib}", want: "at '/state/hostPath'"},
	} {
		t.Run(test.name, func(t *testing.T) {
			values := parseValues(t, test.values)
			if test.name != "no registry" {
				values = chartutil.CoalesceTables(values, map[string]any{"image": map[string]any{"registry": "r"}})
			}
			_, err := render(loadChart(t), values)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestNotesSayWhatToDoNext(t *testing.T) {
	for _, test := range []struct {
		values string
		want   string
	}{
		{values: "default", want: `sockwatch VERSION runs as the DaemonSet sockwatch in the namespace sockwatch.

See what listens on one of the nodes, and who owns it:
  kubectl -n sockwatch exec daemonset/sockwatch -- sockwatch list

If no pod appears, the namespace does not admit it:
  kubectl label namespace sockwatch pod-security.kubernetes.io/enforce=privileged

Anyone who can reach the internal address of a node can read its listeners at port 8088. The value
webConfig.secretName adds TLS and a password.
`},
		{values: "other-user", want: `sockwatch VERSION runs as the DaemonSet sockwatch in the namespace sockwatch.

See what listens on one of the nodes, and who owns it:
  kubectl -n sockwatch exec daemonset/sockwatch -- sockwatch list

If no pod appears, the namespace does not admit it:
  kubectl label namespace sockwatch pod-security.kubernetes.io/enforce=privileged

Anyone who can reach the internal address of a node can read its listeners at port 8088. The value
webConfig.secretName adds TLS and a password.

Queues and history end with the pod: state.hostPath is empty.
`},
		{values: "web", want: `sockwatch VERSION runs as the DaemonSet sockwatch in the namespace sockwatch.

See what listens on one of the nodes, and who owns it:
  kubectl -n sockwatch exec daemonset/sockwatch -- sockwatch list

If no pod appears, the namespace does not admit it:
  kubectl label namespace sockwatch pod-security.kubernetes.io/enforce=privileged
`},
	} {
		files, err := render(loadChart(t), valueSets(t)[test.values])
		if err != nil {
			t.Fatal(err)
		}
		want := strings.ReplaceAll(test.want, "VERSION", sourceVersion(t))
		if diff := cmp.Diff(want, files["NOTES.txt"]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.values, diff)
		}
	}
}
