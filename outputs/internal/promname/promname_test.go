package promname

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
)

func TestNames(t *testing.T) {
	for _, test := range []struct{ point, field, want string }{
		{"tcp_listen", "backlog", "tcp_listen_backlog"},
		{"custom_port_exporter", "value", "custom_port_exporter"},
		{"a.b-c", "d e", "a_b_c_d_e"},
		{"job:rate", "sum", "job:rate_sum"},
		{"9lives", "left", "_9lives_left"},
		{"größe", "value", "gr__e"},
		{"世界", "x", "___x"},
		{"a\nb", "c\"d", "a_b_c_d"},
		{"\xff", "value", "_"},
	} {
		if got := Metric(test.point, test.field); got != test.want {
			t.Errorf("Metric(%q, %q) = %q, want %q", test.point, test.field, got, test.want)
		}
	}
	for _, test := range []struct{ tag, want string }{
		{"process", "process"},
		{"__name__", "_name__"},
		{"____", "_"},
		{"a:b", "a_b"},
		{"0", "_0"},
		{"le", "le"},
		{"é", "_"},
		{"--x", "_x"},
	} {
		if got := label(test.tag); got != test.want {
			t.Errorf("label(%q) = %q, want %q", test.tag, got, test.want)
		}
	}
}

func TestLabelsAreSortedAndUnique(t *testing.T) {
	for _, test := range []struct {
		name  string
		tags  []metric.Tag
		want  [][2]string
		clash []int
	}{
		{name: "none"},
		{name: "classic", tags: metric.NewTags("a", "1", "b", "2"), want: [][2]string{{"a", "1"}, {"b", "2"}}},
		{name: "renamed", tags: metric.NewTags("0", "1", "A", "2"), want: [][2]string{{"A", "2"}, {"_0", "1"}}},
		{name: "a key wins", tags: metric.NewTags("a-b", "1", "a_b", "2"), want: [][2]string{{"a_b", "2"}}, clash: []int{0}},
		{name: "the first wins", tags: metric.NewTags("a b", "1", "a-b", "2"), want: [][2]string{{"a_b", "1"}}, clash: []int{1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var labeler Labeler
			for range 2 { // the second time from remembered names
				var clash []int
				var got [][2]string
				for _, p := range labeler.Append([]Pair{{}}, test.tags, func(i int) { clash = append(clash, i) })[1:] {
					got = append(got, [2]string{*p.Name, *p.Value})
				}
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("labels (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(test.clash, clash); diff != "" {
					t.Errorf("clashes (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestSamplesAreNumbers(t *testing.T) {
	stale := math.Float64frombits(0x7ff0000000000002)
	for _, test := range []struct {
		value    metric.Value
		kind     metric.Type
		want     float64
		noSample bool
	}{
		{value: metric.Int(-1), kind: metric.Gauge, want: -1},
		{value: metric.Uint(math.MaxUint64), kind: metric.Counter, want: 1 << 64},
		{value: metric.Bool(true), want: 1},
		{value: metric.Float(math.Inf(-1)), kind: metric.Gauge, want: math.Inf(-1)},
		{value: metric.Float(stale), kind: metric.Gauge, want: math.NaN()},
		{value: metric.Float(stale), kind: metric.Counter, noSample: true},
		{value: metric.String("1"), noSample: true},
	} {
		got, ok := Sample(test.value, test.kind)
		if ok == test.noSample || ok && math.Float64bits(got) != math.Float64bits(test.want) {
			t.Errorf("Sample(%v, %v) = %v, %v, want %v, %v", test.value, test.kind, got, ok, test.want, !test.noSample)
		}
	}
}
