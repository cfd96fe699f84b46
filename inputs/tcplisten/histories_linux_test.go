package tcplisten

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin/plugintest/soak"
	"sockwatch/inputs/internal/changes"
)

var randomHistories = flag.Int("random.histories", soak.Times(7), "random histories to compare with the model, see random.seed")

// TestRandomHistories runs programs on the real kernel that open, close, restart, move, fork,
// hand over their sockets, join and leave ports, execute others and exist only for one scan,
// while the agent is restarted and killed, the clock is set and the host sleeps. It compares
// the events with those that the model derives from the actions of the test.
func TestRandomHistories(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many processes")
	}
	o := observe(t, eventOptions())
	if o == nil {
		return
	}
	dir := t.TempDir()
	events := 0
	for seed := *randomSeed; seed < *randomSeed+uint64(*randomHistories) && !t.Failed(); seed++ {
		h := &randomHistory{observer: o, dir: dir, random: rand.New(rand.NewPCG(seed, 1))}
		o.env.StateDir = fastDir(t)
		o.restart(eventOptions())
		h.play()
		want := modelOf(h.states)
		slices.Sort(want)
		slices.Sort(h.events)
		if diff := gocmp.Diff(want, h.events); diff != "" {
			t.Errorf("history %d (-model +sockwatch):\n%s\n%s", seed, diff, strings.Join(h.story, "\n"))
		}
		events += len(want)
		h.end()
	}
	t.Logf("%d events in %d histories", events, *randomHistories)
	if events < 5**randomHistories {
		t.Errorf("only %d events", events)
	}
}

// A place is an address and port on which a program of a random history listens.
type place struct {
	port, address int // 127.0.0.address
}

func (p place) String() string { return fmt.Sprintf("127.0.0.%d:%d", p.address, p.port) }

// A trueSocket is an open socket and its owner: the first name of the program.
type trueSocket struct {
	id    int
	owner string
}

// A trueState is the actual state of the host at a gather.
type trueState struct {
	changes.Moment
	sockets map[place][]trueSocket
	scanned map[place]changes.Moment // those that only a scan could see, and when
}

// A randomHistory is a history of programs, each with its own port.
type randomHistory struct {
	*observer
	dir      string // directory of the programs
	random   *rand.Rand
	programs []*randomProgram
	sockets  int // number of sockets ever opened
	shorts   int // number of programs that only a scan has seen
	states   []trueState
	events   []string
	story    []string
}

type randomProgram struct {
	place
	owner string // name in the model
	name  string // name of the process
	opens int    // the step at which it opens again; 0: never
	calm  int    // the step until which nothing is done to it

	instances []*instance
	joined    *instance // of another program
}

// An instance is a process with one socket.
type instance struct {
	trueSocket
	*exec.Cmd
	again io.Closer // when closed, the process executes another program; or nil
	seen  bool      // a gather has seen it
}

func (h *randomHistory) log(p *randomProgram, what string, arguments ...any) {
	h.story = append(h.story, fmt.Sprintf("%s %v %s", h.now.Time.UTC().Format(time.DateTime), p.place, fmt.Sprintf(what, arguments...)))
}

func (h *randomHistory) play() {
	for i, name := range []string{"alpha", "beta", "gamma"} {
		h.programs = append(h.programs, &randomProgram{place: place{4000 + i, 1}, owner: name, name: name})
	}
	const steps = 20
	for step := 1; step <= steps+12; step++ {
		for _, p := range h.programs {
			if p.opens != 0 && step >= p.opens {
				p.opens = 0
				h.log(p, "opens as %s", p.name)
				h.open(p)
			}
		}
		if step <= steps && step > 1 {
			for range h.random.IntN(3) {
				h.act(step)
			}
		} else if step == 1 {
			h.open(h.programs[0])
		}
		h.pass(time.Duration(1+h.random.IntN(20)) * time.Second)
		h.keep = h.random.IntN(3) == 0
		h.see()
	}
}

// see gathers, and records the actual state.
func (h *randomHistory) see() {
	scanned := make(map[place]changes.Moment)
	if len(h.states) > 0 && h.input.open != nil && h.random.IntN(6) == 0 {
		h.shorts++
		at := h.short(place{5000 + h.shorts, 1})
		scanned[at] = h.now
		h.pass(time.Duration(h.random.IntN(5)) * time.Second)
	}
	b := h.gatherAfter(0)
	l := trueState{Moment: h.now, sockets: make(map[place][]trueSocket), scanned: scanned}
	for _, p := range h.programs {
		for _, i := range p.all() {
			l.sockets[p.place] = append(l.sockets[p.place], i.trueSocket)
			i.seen = true
		}
	}
	h.states = append(h.states, l)
	for _, e := range h.news(b) {
		h.events = append(h.events, fmt.Sprintf("%s %s %s:%s", e.Time.UTC().Format(time.DateTime), e.Tag("event"), e.Tag("address"), e.Tag("port")))
	}
}

// short starts and ends a program that only a scan can see.
func (h *randomHistory) short(at place) place {
	h.story = append(h.story, fmt.Sprintf("%s %v lives for a scan", h.now.Time.UTC().Format(time.DateTime), at))
	i := h.execute(trueSocket{h.number(), "short"}, "short", "", socket(h.t, fmt.Sprintf("127.0.0.%d", at.address), at.port))
	h.pass(time.Duration(1+h.random.IntN(5)) * time.Second)
	if !h.scan(h.t.Context(), h.now) {
		h.t.Errorf("the scan does not see %v", at)
	}
	end(i.Cmd)
	return at
}

func (p *randomProgram) all() []*instance {
	if p.joined != nil {
		return append(slices.Clone(p.instances), p.joined)
	}
	return p.instances
}

// act performs a random action.
func (h *randomHistory) act(step int) {
	p := h.programs[h.random.IntN(len(h.programs))]
	if step < p.calm {
		return
	}
	switch action := h.random.IntN(22); {
	case action == 0:
		h.log(p, "- the agent is restarted")
		h.restart(eventOptions())
	case action == 1:
		h.log(p, "- the agent is killed")
		h.kill(eventOptions())
	case action == 2:
		h.log(p, "- no gather for a while")
		h.pass(time.Duration(h.random.IntN(200)) * time.Second)
	case action == 20:
		h.log(p, "- the clock is set")
		h.now.Time = h.now.Time.Add(time.Duration(h.random.IntN(100)-50) * time.Hour)
	case action == 21:
		h.log(p, "- the host sleeps")
		h.now.Time, h.now.Uptime = h.now.Time.Add(8*time.Hour), h.now.Uptime+8*time.Hour
	case p.opens != 0:
	case len(p.instances) == 0:
		p.opens = step
	case action <= 4:
		h.log(p, "closes")
		h.shut(p)
	case action <= 7:
		h.shut(p)
		p.opens = step + h.random.IntN(7)
		h.log(p, "restarts")
	case action <= 9:
		h.shut(p)
		h.log(p, "moves")
		p.address++
		p.opens = step + h.random.IntN(4)
	case action == 10:
		h.shut(p)
		p.name += "x"
		p.owner = p.name
		p.opens = step + h.random.IntN(7)
		h.log(p, "becomes %s", p.name)
	case action == 11:
		h.log(p, "forks, and the parent exits")
		h.handOn(p)
	case action == 12:
		p.name += "y"
		p.owner = p.name
		h.log(p, "leaves its sockets to %s", p.name)
		h.handOn(p)
	case action == 13:
		h.log(p, "adds a socket")
		h.open(p)
	case action == 14:
		h.log(p, "replaces a socket")
		h.open(p)
		end(p.instances[0].Cmd)
		p.instances[0].release()
		p.instances = p.instances[1:]
	case action <= 16:
		h.rename(p, step)
	case p.joined == nil:
		h.log(p, "is joined by a thief")
		p.joined = h.execute(trueSocket{h.number(), "thief"}, "thief", "", socket(h.t, fmt.Sprintf("127.0.0.%d", p.address), p.port))
	default:
		h.log(p, "is left by the thief")
		end(p.joined.Cmd)
		p.joined = nil
	}
}

func (h *randomHistory) number() int {
	h.sockets++
	return h.sockets
}

// open starts another instance.
func (h *randomHistory) open(p *randomProgram) {
	next := ""
	if len(p.instances) == 0 && h.random.IntN(2) == 0 {
		next = p.name + "z"
	}
	file := socket(h.t, fmt.Sprintf("127.0.0.%d", p.address), p.port)
	p.instances = append(p.instances, h.execute(trueSocket{h.number(), p.owner}, p.name, next, file))
}

func (h *randomHistory) shut(p *randomProgram) {
	for _, i := range p.all() {
		end(i.Cmd)
		i.release()
	}
	p.instances, p.joined = nil, nil
}

// handOn replaces every process of the program with a new one that has the same socket.
func (h *randomHistory) handOn(p *randomProgram) {
	for k, i := range p.instances {
		file := takeFrom(h.t, i.Process.Pid)
		p.instances[k] = h.execute(trueSocket{i.id, p.owner}, p.name, "", file)
		end(i.Cmd)
		i.release()
	}
}

// release closes what the test holds for an instance that has ended.
func (i *instance) release() {
	if i.again != nil {
		i.again.Close()
	}
}

// rename makes the only process of a program execute another one, if possible. Nothing else is
// done to the program until the agent has seen it.
func (h *randomHistory) rename(p *randomProgram, step int) {
	if len(p.instances) != 1 || p.instances[0].again == nil || !p.instances[0].seen {
		return
	}
	i := p.instances[0]
	i.again.Close()
	i.again = nil
	p.name += "z"
	h.log(p, "executes %s", p.name)
	soon(h.t, "the process has executed another program", func() bool {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", i.Process.Pid))
		return string(text) == p.name+"\n"
	})
	p.calm = step + 3
}

// execute starts a process that holds a socket. If next is not empty, the process executes
// itself under that name when again is closed.
func (h *randomHistory) execute(s trueSocket, name, next string, file *os.File) *instance {
	link := func(name, to string) string {
		program := filepath.Join(h.dir, name)
		to, err := exec.LookPath(to)
		if err == nil {
			os.Remove(program)
			err = os.Symlink(to, program)
		}
		if err != nil {
			h.t.Fatal(err)
		}
		return program
	}
	if next == "" {
		return &instance{trueSocket: s, Cmd: execute(h.t, link(name, "sleep"), file)}
	}
	r, w, err := os.Pipe()
	if err != nil {
		h.t.Fatal(err)
	}
	defer r.Close()
	cmd := executeWith(h.t, r, file, link(name, "sh"), "-c", fmt.Sprintf("read line; exec %s 600", link(next, "sleep")))
	return &instance{trueSocket: s, Cmd: cmd, again: w}
}

// end stops all programs.
func (h *randomHistory) end() {
	for _, p := range h.programs {
		h.shut(p)
	}
}

// modelOf returns the events of a history in which every owner is found at once. It is simpler
// than package changes: it has no records, searches or namespaces.
func modelOf(states []trueState) []string {
	m := &historyModel{known: make(map[place]*knownPlace)}
	for k := range states {
		m.gather(&states[k], k == 0)
	}
	return m.events
}

type historyModel struct {
	known  map[place]*knownPlace
	now    *trueState
	events []string
}

// A knownPlace is the state of a place that was ever used.
type knownPlace struct {
	place
	there  bool // it is reported as open, or missing for less than settle
	owners map[string]bool
	told   map[int]bool    // the sockets of the last event
	gone   *changes.Moment // since when it has been missing
	lost   *changes.Moment // since when an owner has had no socket
}

func (m *historyModel) tell(kind string, at place, since changes.Moment) {
	m.events = append(m.events, fmt.Sprintf("%s %s %v", since.Time.UTC().Format(time.DateTime), kind, at))
}

func (m *historyModel) settled(since *changes.Moment) bool {
	return m.now.Mono-since.Mono >= time.Minute
}

func (m *historyModel) gather(l *trueState, baseline bool) {
	m.now = l
	for _, k := range m.known {
		if len(l.sockets[k.place]) == 0 && k.there && k.gone == nil {
			k.gone, k.lost = &l.Moment, nil
		}
	}
	for at, sockets := range l.sockets {
		k := m.known[at]
		switch {
		case k == nil || !k.there:
			kind := "opened"
			if k != nil {
				kind = "returned"
			}
			owners := ownersOf(sockets)
			if from := m.movedFrom(at, owners); from != nil {
				kind, from.there = "exposure_changed", false
			}
			m.known[at] = &knownPlace{place: at, there: true}
			m.known[at].take(sockets)
			if !baseline {
				m.tell(kind, at, l.Moment)
			}
		default:
			k.gone = nil
			m.compare(k, sockets)
		}
	}
	for at, seen := range l.scanned {
		m.tell("opened", at, seen)
		m.known[at] = &knownPlace{place: at, there: true, gone: &l.Moment}
	}
	for _, k := range m.known {
		if k.there && k.gone != nil && m.settled(k.gone) {
			k.there = false
			m.tell("closed", k.place, *k.gone)
		}
	}
}

// movedFrom returns the place that the owners left most recently, if that is not too long ago.
func (m *historyModel) movedFrom(to place, owners map[string]bool) (from *knownPlace) {
	for _, k := range m.known {
		if k.port != to.port || !k.there || k.gone == nil || m.now.Mono-k.gone.Mono > time.Minute || !within(owners, k.owners) {
			continue
		}
		if from == nil || cmp.Or(cmp.Compare(k.gone.Mono, from.gone.Mono), -cmp.Compare(k.address, from.address)) > 0 {
			from = k
		}
	}
	return from
}

func (m *historyModel) compare(k *knownPlace, sockets []trueSocket) {
	owners := ownersOf(sockets)
	left := slices.ContainsFunc(sockets, func(s trueSocket) bool { return k.told[s.id] })
	switch {
	case !within(owners, k.owners):
		m.tell("owner_changed", k.place, m.now.Moment)
		k.take(sockets)
		return
	case !left:
		m.tell("restarted", k.place, m.now.Moment)
		had := k.owners
		lost := k.lost
		k.take(sockets)
		k.owners, k.lost = had, lost
	}
	switch {
	case within(k.owners, owners):
		k.lost = nil
	case k.lost == nil:
		k.lost = &m.now.Moment
	case left && m.settled(k.lost):
		m.tell("owner_changed", k.place, *k.lost)
		k.take(sockets)
	}
}

// take records that all of the sockets have been reported.
func (k *knownPlace) take(sockets []trueSocket) {
	k.owners, k.told, k.lost = ownersOf(sockets), make(map[int]bool), nil
	for _, s := range sockets {
		k.told[s.id] = true
	}
}

func ownersOf(sockets []trueSocket) map[string]bool {
	owners := make(map[string]bool)
	for _, s := range sockets {
		owners[s.owner] = true
	}
	return owners
}

// within reports whether a is a subset of b.
func within(a, b map[string]bool) bool {
	for name := range a {
		if !b[name] {
			return false
		}
	}
	return true
}
