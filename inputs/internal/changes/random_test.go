package changes

import (
	"flag"
	"fmt"
	"math/rand"
	"slices"
	"testing"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin/plugintest/soak"

	"github.com/google/go-cmp/cmp"
)

var (
	histories = flag.Int("histories", 0, "random histories to play; 0: 300 times SOCKWATCH_SOAK")
	firstSeed = flag.Int64("seed", 1, "seed of the first random history")
)

// TestRandomHistories simulates hosts on which services open, close, restart, move, hand over
// their sockets and hide, while sockwatch fails and is killed, and the host boots, sleeps and
// has its clock set. It compares all events with those of the model.
func TestRandomHistories(t *testing.T) {
	n := *histories
	if n == 0 {
		n = soak.Times(300)
	}
	for seed := *firstSeed; seed < *firstSeed+int64(n) && !t.Failed(); seed++ {
		w := &randomHost{simHost: newSimHost(t), random: rand.New(rand.NewSource(seed))}
		w.play()
		var want, got []string
		for _, e := range model(w.options, w.past) {
			want = append(want, e.String())
		}
		for i := range w.events {
			got = append(got, eventOf(&w.events[i]).String())
		}
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("seed %d (-want +got)\n%s\n%s", seed, diff, w.story)
		}
	}
}

func eventOf(p *metric.Point) modelEvent {
	var port int
	fmt.Sscan(p.Tag("port"), &port)
	return modelEvent{at: Endpoint{Address: p.Tag("address"), Port: uint16(port)}, kind: p.Tag("event"), time: p.Time}
}

// A randomHost is a host with a few services to which anything can happen.
type randomHost struct {
	*simHost
	random   *rand.Rand
	services []*randomService
	past     []pastScan
	story    string
}

type randomService struct {
	port    int
	address int // 10.0.0.address; it moves to the next
	process *simProcess
	sockets []*simSocket
	thief   *simSocket
	opens   int                // the step at which it opens again; 0: never
	pending map[*simSocket]int // the step at which the search ends
	hidden  bool
}

func (w *randomHost) log(format string, args ...any) {
	w.story += fmt.Sprintf("%s %s\n", w.now.Time.UTC().Format(time.DateTime), fmt.Sprintf(format, args...))
}

func (w *randomHost) play() {
	for i := range 4 {
		w.services = append(w.services, &randomService{
			port: 1000 + i, address: 1, process: w.process(fmt.Sprintf("service-%c", 'a'+i)), pending: make(map[*simSocket]int),
		})
	}
	steps := 60 + w.random.Intn(60)
	failing := 0
	for step := 1; step < steps+60; step++ {
		w.sleep(simInterval, 0)
		if step < steps && step > 1 {
			for range w.random.Intn(3) {
				w.act(step, &failing)
			}
		}
		for _, s := range w.services {
			w.tend(s, step)
		}
		if failing > 0 {
			failing--
			continue
		}
		w.changed = true
		w.scan()
		w.remember()
	}
}

// tend opens a service that is due, and sets what can be seen of its owner.
func (w *randomHost) tend(s *randomService, step int) {
	if s.opens != 0 && step >= s.opens {
		s.opens = 0
		w.open(s, step)
	}
	for _, socket := range append(slices.Clone(s.sockets), s.thief) {
		switch {
		case socket == nil:
		case step < s.pending[socket]:
			socket.status = Pending
		case s.hidden:
			socket.status = Unknown
		default:
			socket.status = Known
		}
	}
}

func (w *randomHost) open(s *randomService, step int) {
	s.process = w.again(s.process)
	for range 1 + w.random.Intn(2) {
		w.addSocket(s, step, s.process)
	}
	w.log("%d opens at address %d, %d sockets, pid %d", s.port, s.address, len(s.sockets), s.process.pid)
}

func (w *randomHost) addSocket(s *randomService, step int, p *simProcess) *simSocket {
	socket := w.listen(fmt.Sprintf("10.0.0.%d:%d", s.address, s.port), p)
	if w.random.Intn(3) == 0 {
		s.pending[socket] = step + w.random.Intn(5)
	}
	s.sockets = append(s.sockets, socket)
	return socket
}

func (w *randomHost) shut(s *randomService) {
	w.close(s.sockets...)
	s.sockets = nil
	if s.thief != nil {
		w.close(s.thief)
		s.thief = nil
	}
}

func (w *randomHost) act(step int, failing *int) {
	s := w.services[w.random.Intn(len(w.services))]
	isOpen := len(s.sockets) > 0
	switch action := w.random.Intn(24); {
	case action == 0:
		*failing = 1 + w.random.Intn(8)
		w.log("%d scans fail", *failing)
	case action == 1:
		w.log("clock jumps")
		w.now.Time = w.now.Time.Add(time.Duration(w.random.Intn(100)) * time.Hour)
	case action == 2:
		w.log("sleeps")
		w.sleep(8*time.Hour, 8*time.Hour)
	case action == 3 && step > 5:
		w.boot(time.Minute)
		for _, s := range w.services {
			if len(s.sockets) > 0 {
				s.opens = step + w.random.Intn(20)
			}
			s.sockets, s.thief, s.hidden = nil, nil, false
			clear(s.pending)
		}
		w.log("boots")
	case action <= 5:
		w.log("sockwatch is killed")
		w.restore()
	case s.opens != 0: // it will open later
	case !isOpen:
		s.opens = step
	case action <= 7:
		w.log("%d closes", s.port)
		w.shut(s)
	case action <= 11:
		w.log("%d restarts", s.port)
		w.shut(s)
		s.opens = step + w.random.Intn(9)
	case action <= 13:
		w.log("%d moves", s.port)
		w.shut(s)
		s.address++
		s.opens = step + w.random.Intn(4)
	case action <= 15:
		w.log("%d gets another owner", s.port)
		w.shut(s)
		s.process = w.process(s.process.name + "x")
		s.opens = step + w.random.Intn(9)
	case action == 16:
		w.log("%d forks", s.port)
		s.process = w.again(s.process)
		for _, socket := range s.sockets {
			socket.hold(s.process)
		}
	case action == 17:
		w.log("%d leaves its sockets to another program", s.port)
		s.process = w.process(s.process.name + "y")
		for _, socket := range s.sockets {
			socket.hold(s.process)
			s.pending[socket] = step + w.random.Intn(3)
		}
	case action <= 19:
		w.log("%d is hidden: %t", s.port, !s.hidden)
		s.hidden = !s.hidden
	case action == 20:
		w.log("%d replaces a socket", s.port)
		w.close(s.sockets[0])
		s.sockets = s.sockets[1:]
		w.addSocket(s, step, w.again(s.process))
	case action == 21:
		w.log("%d adds a socket", s.port)
		w.addSocket(s, step, w.again(s.process))
	case s.thief == nil:
		w.log("%d gets a thief", s.port)
		s.thief = w.listen(fmt.Sprintf("10.0.0.%d:%d", s.address, s.port), w.process("thief"))
	default:
		w.log("%d loses the thief", s.port)
		w.close(s.thief)
		s.thief = nil
	}
}

// remember records the scan for the model.
func (w *randomHost) remember() {
	l := pastScan{Moment: w.now, sockets: make(map[Endpoint][]pastSocket)}
	for _, s := range w.sockets {
		p := pastSocket{id: s.id, searching: s.status == Pending}
		if s.status == Known {
			p.owner = s.holders[0].name
		}
		l.sockets[s.at] = append(l.sockets[s.at], p)
	}
	w.past = append(w.past, l)
}
