package livepage

import (
	"fmt"

	"sockwatch/agent/metric"
)

// maxAlerts is how many alerts of a kind are listed. One more says how many there are.
const maxAlerts = 10

// An alert is a broken rule, or a listener that breaks one.
type alert struct {
	Kind string // "missing", "forbidden" or "unexpected"
	Text string
	Link string // to the listeners that it is about, or to the events that name the rule, or ""
}

// isViolation reports whether a point is a listener that breaks a rule.
func isViolation(p *metric.Point) bool { return p.Tag("verdict") != "" }

// alerts returns the broken rules: first what is missing, then what is forbidden, then
// what is not expected.
func (s *snapshot) alerts() []alert {
	var missing, forbidden, unexpected []alert
	for _, p := range s.others() {
		up, decided := p.Field("up")
		n, _ := up.Number()
		switch verdict := p.Tag("verdict"); {
		case verdict == "forbidden":
			forbidden = append(forbidden, violation(p, "forbidden", " (rule "+isolate(p.Tag("rule"))+")"))
		case verdict != "":
			unexpected = append(unexpected, violation(p, "unexpected", ""))
		case p.Tag("rule") == "expect" && p.Tag("name") != "" && decided && n == 0:
			name := p.Tag("name")
			missing = append(missing, alert{"missing", fmt.Sprintf("rule %s: expected listener not found", isolate(name)), searchLink(eventsPath, word{value: name}.String(), "", 0)})
		}
	}
	return append(append(limit(missing, ""),
		limit(forbidden, searchLink(rootPath, "expected:forbidden", "", 0))...),
		limit(unexpected, searchLink(rootPath, "expected:no", "", 0))...)
}

// violation returns the alert of a listener that breaks a rule. If a user has very many,
// one point without an address stands for the rest.
func violation(p *metric.Point, kind, why string) alert {
	if p.Tag("address") == "" {
		return alert{kind, "more of user " + isolate(p.Tag("user")), searchLink(rootPath, exactly("user", p.Tag("user")).String(), "", 0)}
	}
	text := hostPort(p.Tag("address"), p.Tag("port"))
	text += " " + ownerText(p.Tag("process"), "", p.Tag("user"), p.Tag("unit")) + why
	if e := p.Tag("exposure"); e != "" {
		text += ", exposure " + e
	}
	return alert{kind, text, searchLink(rootPath, endpointSearch(p), "", 0)}
}

// limit returns the first alerts, and how many more there are.
func limit(alerts []alert, link string) []alert {
	if len(alerts) <= maxAlerts {
		return alerts
	}
	return append(alerts[:maxAlerts:maxAlerts], alert{alerts[0].Kind, fmt.Sprintf("%d more", len(alerts)-maxAlerts), link})
}
