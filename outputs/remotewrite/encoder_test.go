package remotewrite

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
)

var at = time.UnixMilli(1795341600123)

var testDescs = []metric.Desc{
	{Name: "tcp_listen", Field: "backlog", Type: metric.Gauge, Unit: "connections", Help: "Length of the accept queue"},
	{Name: "tcp_listen", Field: "drops_total", Type: metric.Counter, Unit: "connections", Help: "Dropped connections"},
	{Name: "tcp_listen", Field: "age_seconds", Type: metric.Gauge, Unit: "seconds", Help: "Age of the process"},
	{Name: "tcp_listen", Field: "exe", Help: "Path of the program"},
}

// newTestEncoder returns an encoder with testDescs, and what it drops.
func newTestEncoder() (*encoder, *[]string) {
	var dropped []string
	e := &encoder{dropped: func(series, what, name string) { dropped = append(dropped, what+" "+name+" of "+series) }}
	e.useDescs(testDescs)
	return e, &dropped
}

func TestRecords(t *testing.T) {
	listener := metric.Point{
		Name: "tcp_listen", Time: at, Start: at.Add(-time.Minute), Tags: metric.NewTags("address", "::", "port", "443"),
		Fields: []metric.Field{
			{Key: "backlog", Value: metric.Int(-128)}, {Key: "exe", Value: metric.String("/bin/x")},
			{Key: "drops_total", Value: metric.Uint(math.MaxUint64)}, {Key: "age_seconds", Value: metric.Float(0.25)},
			{Key: "up", Value: metric.Bool(true)},
		},
	}
	unknownStart := listener
	unknownStart.Start = time.Time{}
	for _, test := range []struct {
		name    string
		point   metric.Point
		ended   bool
		want    string
		dropped []string
	}{
		{
			name: "types and start", point: listener,
			want: `1795341600123 {address="::",port="443"} tcp_listen_backlog=g-128 tcp_listen_drops_total=c1.8446744073709552e+19@1795341540123 tcp_listen_age_seconds=g0.25 tcp_listen_up=u1`,
		},
		{
			name: "unknown start", point: unknownStart,
			want: `1795341600123 {address="::",port="443"} tcp_listen_backlog=g-128 tcp_listen_drops_total=c1.8446744073709552e+19 tcp_listen_age_seconds=g0.25 tcp_listen_up=u1`,
		},
		{
			name: "ended", point: listener, ended: true,
			want: `1795341600123 {address="::",port="443"} tcp_listen_backlog=gstale tcp_listen_drops_total=cstale tcp_listen_age_seconds=gstale tcp_listen_up=ustale`,
		},
		{
			name:  "only strings",
			point: metric.Point{Name: "m", Time: at, Fields: []metric.Field{{Key: "s", Value: metric.String("x")}}},
		},
		{
			name:  "a counter that is not a number",
			point: metric.Point{Name: "tcp_listen", Time: at, Fields: []metric.Field{{Key: "drops_total", Value: metric.Float(math.NaN())}}},
		},
		{
			name: "not finite",
			point: metric.Point{Name: "m", Time: at, Fields: []metric.Field{
				{Key: "nan", Value: metric.Float(stale)}, {Key: "up", Value: metric.Float(math.Inf(1))}, {Key: "down", Value: metric.Float(math.Inf(-1))}}},
			want: `1795341600123 {} m_nan=uNaN m_up=u+Inf m_down=u-Inf`,
		},
		{
			name: "hostile values",
			point: metric.Point{
				Name: "m", Time: time.UnixMilli(-1), Tags: metric.NewTags("a", "\\ \" \n", "b", `x"} m=u1`),
				Fields: []metric.Field{{Key: "value", Value: metric.Int(1)}},
			},
			want: `-1 {a="\\ \" \n",b="x\"} m=u1"} m=u1`,
		},
		{
			name: "names that become one",
			point: metric.Point{
				Name: "m", Time: at, Tags: metric.NewTags("a-b", "1", "a_b", "2"),
				Fields: []metric.Field{{Key: "c-d", Value: metric.Int(1)}, {Key: "c_d", Value: metric.Int(2)}, {Key: "c.d", Value: metric.Int(3)}},
			},
			want:    `1795341600123 {a_b="2"} m_c_d=u1`,
			dropped: []string{`tag a-b of m{a-b="1",a_b="2"}`, `field c_d of m{a-b="1",a_b="2"}`, `field c.d of m{a-b="1",a_b="2"}`},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			e, dropped := newTestEncoder()
			got := e.append([]byte("before"), &test.point, test.ended)
			if diff := cmp.Diff("before"+test.want, string(got)); diff != "" {
				t.Errorf("record (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.dropped, *dropped); diff != "" {
				t.Errorf("dropped (-want +got):\n%s", diff)
			}
		})
	}
}

// TestTypesFollowTheDescs has two sources whose fields with the same name have other types.
func TestTypesFollowTheDescs(t *testing.T) {
	e, _ := newTestEncoder()
	p := metric.Point{Name: "tcp_listen", Time: at, Fields: []metric.Field{{Key: "backlog", Value: metric.Int(1)}}}
	other := []metric.Desc{{Name: "tcp_listen", Field: "backlog", Type: metric.Counter}}
	for _, test := range []struct {
		descs []metric.Desc
		want  string
	}{
		{testDescs, "tcp_listen_backlog=g1"}, {other, "tcp_listen_backlog=c1"}, {nil, "tcp_listen_backlog=u1"}, {testDescs, "tcp_listen_backlog=g1"},
	} {
		e.useDescs(test.descs)
		if got := string(e.append(nil, &p, false)); got != "1795341600123 {} "+test.want {
			t.Errorf("record %q, want %s", got, test.want)
		}
	}
}

// FuzzPoint encodes any point and decodes it again.
func FuzzPoint(f *testing.F) {
	f.Add("m", "k", "v", "f", 0.5, int64(1), int64(0))
	for _, s := range []string{"\\ \" \n", "{}", "__name__", "a-b", "0", "é世界", strings.Repeat("x", 300)} {
		f.Add(s, s, s, s, math.Inf(1), int64(math.MinInt64), int64(-1))
	}
	f.Fuzz(func(t *testing.T, name, key, value, fieldKey string, number float64, integer, ms int64) {
		p := metric.Point{
			Name: name, Time: time.UnixMilli(ms), Tags: []metric.Tag{{Key: key, Value: value}},
			Fields: []metric.Field{{Key: fieldKey, Value: metric.Float(number)}, {Key: "i" + fieldKey, Value: metric.Int(integer)}},
		}
		if p.Check() != nil {
			t.Skip()
		}
		e, _ := newTestEncoder()
		c, rejected := newCollector().collect([][]byte{e.append(nil, &p, false)}, math.MinInt64)
		if len(rejected) > 0 {
			t.Fatal(rejected[0])
		}
		v1, _ := decodeV1(t, appendV1(nil, c, nil))
		v2 := decodeV2(t, appendV2(nil, c, nil))
		for i := range v2 { // 1.0 has neither types nor starts
			v2[i].Type, v2[i].Help, v2[i].Unit = "", "", ""
		}
		if diff := cmp.Diff(v1, v2, labelsToo); diff != "" {
			t.Fatalf("the versions differ (-1.0 +2.0):\n%s", diff)
		}
		if len(v1) == 0 || v1[0].Samples[0].Time != ms {
			t.Fatalf("%v becomes %v", p, v1)
		}
		for _, s := range v1 {
			if l := s.Labels[len(s.Labels)-1]; l.value != value && l.name != nameLabel && s.Labels[0].value != value {
				t.Errorf("label %q of %q is %q", l.name, p.Series(), l.value)
			}
		}
	})
}
