package remotewrite

import (
	"math"
	"testing"
	"time"

	"sockwatch/agent/metric"
)

func TestDamagedRecordsAreErrors(t *testing.T) {
	for _, test := range []struct{ record, want string }{
		{"", "record: no time"},
		{"x {} m=u1", `record: time "x" is not an integer`},
		{"1", "record: no time"},
		{"1 ", "record: labels do not end"},
		{"1 m=u1", "record: labels do not end"},
		{`1 {a="\"} m=u1`, "record: labels do not end"},
		{`1 {}m=u1`, `record: "m=u1" is not a sample`},
		{`1 {} m`, `record: "m" is not a sample`},
		{`1 {} m=`, `record: "m=" is not a sample`},
		{`1 {} m=u`, `record: "m=u" is not a sample`},
		{`1 {} 1m=u1`, `record: "1m=u1" is not a sample`},
		{`1 {} m=x1`, `record: "m=x1" has an unknown type`},
		{`1 {} m=u1 `, `record: "" is not a sample`},
		{`1 {} m=u1x`, `record: the value of "m=u1x" is not a number`},
		{`1 {} m=c1@`, `record: the start of "m=c1@" is not an integer`},
		{`1 {a} m=u1`, `record: "{a}" are not labels`},
		{`1 {a=1} m=u1`, `record: "{a=1}" are not labels`},
		{`1 {a="1"b="2"} m=u1`, `record: "{a=\"1\"b=\"2\"}" are not labels`},
		{`1 {a="1",} m=u1`, `record: "{a=\"1\",}" are not labels`},
		{`1 {a="\x"} m=u1`, `record: "{a=\"\\x\"}" are not labels`},
		{`1 {b="1",a="2"} m=u1`, `record: "{b=\"1\",a=\"2\"}" are not labels`},
		{`1 {a="1",a="2"} m=u1`, `record: "{a=\"1\",a=\"2\"}" are not labels`},
		{"1 {a=\"\xff\"} m=u1", `record: "{a=\"\xff\"}" are not labels`},
		{`1 {:="1"} m=u1`, `record: "{:=\"1\"}" are not labels`},
	} {
		_, rejected := newCollector().collect([][]byte{[]byte(test.record)}, math.MinInt64)
		got := ""
		if rejected[0] != nil {
			got = rejected[0].Error()
		}
		if got != test.want {
			t.Errorf("%q: error %q, want %q", test.record, got, test.want)
		}
	}
}

// FuzzRecord collects any record. It must not panic, and what it accepts must be equal after
// it is restamped with its own time.
func FuzzRecord(f *testing.F) {
	e, _ := newTestEncoder()
	for _, s := range []string{"nginx", "\\ \" \n", "{}", " ", "=", "@", "é世界"} {
		p := metric.Point{Name: s, Time: at, Start: at, Tags: []metric.Tag{{Key: s, Value: s}}, Fields: []metric.Field{{Key: s, Value: metric.Float(0.5)}}}
		f.Add(e.append(nil, &p, false))
		f.Add(e.append(nil, &p, true))
	}
	f.Fuzz(func(t *testing.T, record []byte) {
		c, rejected := newCollector().collect([][]byte{record}, math.MinInt64)
		if len(rejected) > 0 {
			return
		}
		p, err := parse(record)
		if err != nil {
			t.Fatal(err)
		}
		again, err := restamp(nil, record, time.UnixMilli(p.time))
		if err != nil {
			t.Fatal(err)
		}
		d, rejected := newCollector().collect([][]byte{again}, math.MinInt64)
		if len(rejected) > 0 {
			t.Fatalf("%q is accepted, but not %q: %v", record, again, rejected[0])
		}
		if string(appendV2(nil, c, nil)) != string(appendV2(nil, d, nil)) {
			t.Errorf("%q and %q differ", record, again)
		}
		decodeV1(t, appendV1(nil, c, nil))
		decodeV2(t, appendV2(nil, c, nil))
	})
}
