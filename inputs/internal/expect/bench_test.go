package expect

import (
	"fmt"
	"testing"
	"time"
)

// benchmarkRules returns n rules. Every second one has a port of its own.
func benchmarkRules(b *testing.B, n int) *Rules {
	text := ""
	for i := range n {
		port := fmt.Sprint(1000 + i)
		if i%2 == 1 {
			port = `"1-65535"`
		}
		text += fmt.Sprintf("[[expect]]\nname = 'r%d'\nport = %s\nprocess = 'p%d'\nuser = 'root'\n", i, port, i)
	}
	return compile(b, "unlisted = 'unexpected'\n"+text)
}

func benchmarkScan(r *Rules, n int) *Scan {
	l := &Scan{Moment: Moment{Time: now, Mono: time.Hour, Boot: "b"}}
	for i := range n {
		listener := nginx(uint16(1000+i), by(fmt.Sprintf("p%d", i)))
		l.Listeners = append(l.Listeners, Judged{listener, r.Verdict(listener, now)})
	}
	return l
}

// One listener, 100 rules.
func BenchmarkVerdict(b *testing.B) {
	r := benchmarkRules(b, 100)
	l := nginx(1010, by("p10"))
	for b.Loop() {
		r.Verdict(l, now)
	}
}

func BenchmarkWhy(b *testing.B) {
	r := benchmarkRules(b, 100)
	l := nginx(9999, by("other"))
	for b.Loop() {
		r.Why(l, now)
	}
}

// 5,000 listeners, 4,900 of them unexpected, 100 rules.
func BenchmarkEvaluate(b *testing.B) {
	r := benchmarkRules(b, 100)
	scan := benchmarkScan(r, 5000)
	t := NewTracker(r, trackerOptions)
	t.Evaluate(scan)
	for b.Loop() {
		t.Evaluate(scan)
	}
}

// 5,000 listeners, all of them expected.
func BenchmarkEvaluateAllowed(b *testing.B) {
	r := compile(b, "[[allow]]\nport = '1-65535'")
	scan := benchmarkScan(r, 5000)
	t := NewTracker(r, trackerOptions)
	t.Evaluate(scan)
	for b.Loop() {
		t.Evaluate(scan)
	}
}

func BenchmarkUnchanged(b *testing.B) {
	r := benchmarkRules(b, 100)
	t := NewTracker(r, trackerOptions)
	t.Evaluate(benchmarkScan(r, 5000))
	m := Moment{Time: now, Mono: time.Hour, Boot: "b"}
	for b.Loop() {
		if t.Unchanged(m) {
			b.Fatal("something is due")
		}
	}
}
