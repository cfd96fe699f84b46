package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func TestGeneratedFilesAreCurrent(t *testing.T) {
	files, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range files {
		got, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Error(err)
		} else if string(got) != want {
			t.Errorf("%s is not what \"go run .\" in deploy/monitoring writes", path)
		}
	}
}

// Grafana's own types accept the dashboard, and know all of its fields.
func TestGrafanaKnowsEveryFieldOfTheDashboard(t *testing.T) {
	plugins.RegisterDefaultPlugins()
	text, err := renderDashboard(rows())
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard.Dashboard //nolint:staticcheck // Grafana 9 to 12 import this schema, not the second
	for _, err := range []error{d.UnmarshalJSONStrict([]byte(text)), d.Validate()} {
		if err != nil && err.Error() != "" { // it is a list, which may be empty
			t.Error(err)
		}
	}
}

// A panelModel is what Grafana reads of a panel.
type panelModel struct {
	ID          int
	Type, Title string
	Collapsed   bool
	Panels      []panelModel // of a collapsed row
	GridPos     struct{ X, Y, W, H int }
	Datasource  struct{ UID string }
	Targets     []struct {
		Expr, RefID string
		Datasource  struct{ UID string }
	}
	Transformations []struct {
		Options struct {
			ExcludeByName map[string]bool
			IndexByName   map[string]int
			RenameByName  map[string]string
		}
	}
	FieldConfig struct{ Overrides []json.RawMessage }
}

// panelModels returns all panels of the dashboard, those in collapsed rows too.
func panelModels(t *testing.T) []panelModel {
	t.Helper()
	text, err := renderDashboard(rows())
	if err != nil {
		t.Fatal(err)
	}
	var d struct{ Panels []panelModel }
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	var all []panelModel
	for _, p := range d.Panels {
		all = append(append(all, p), p.Panels...)
	}
	return all
}

// Grafana's classic schema requires: panels side by side without overlaps, each
// with its own id and the variable data source.
func TestDashboardIsWellFormed(t *testing.T) {
	taken := make(map[[2]int]string)
	ids := make(map[int]bool)
	for _, p := range panelModels(t) {
		if ids[p.ID] || p.ID == 0 {
			t.Errorf("panel %q: id %d is taken", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok || x >= 24 {
					t.Fatalf("panel %q overlaps %q at %d,%d", p.Title, other, x, y)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if len(p.Targets) == 0 || p.Datasource.UID != "${datasource}" {
			t.Errorf("panel %q: %d queries of data source %q", p.Title, len(p.Targets), p.Datasource.UID)
		}
		for _, target := range p.Targets {
			if target.Datasource.UID != "${datasource}" || target.Expr == "" {
				t.Errorf("panel %q: query %+v", p.Title, target)
			}
		}
	}
}

func TestDashboardHasItsVariables(t *testing.T) {
	text, err := renderDashboard(rows())
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Templating struct{ List []struct{ Name string } }
	}
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	var variables []string
	for _, v := range d.Templating.List {
		variables = append(variables, v.Name)
	}
	if got := strings.Join(variables, " "); got != "datasource job host" {
		t.Errorf("variables %s", got)
	}
}

// Opening the dashboard of a fleet runs the queries of the fleet alone: those of one host return
// series for each listener.
func TestRowsBelowTheFleetAreCollapsed(t *testing.T) {
	for _, p := range panelModels(t) {
		if collapsed := p.Type == "row" && p.Title != "Fleet"; p.Collapsed != collapsed || len(p.Panels) > 0 != collapsed {
			t.Errorf("%s: collapsed = %v with %d panels, want %v", p.Title, p.Collapsed, len(p.Panels), collapsed)
		}
	}
}

// A table has its columns in the order of the query. A column of values has a title, or is hidden
// if every value is 1. A host is a link to the dashboard of that host.
func TestTablesAreReadable(t *testing.T) {
	tables := 0
	for _, p := range panelModels(t) {
		if p.Type != "table" {
			continue
		}
		tables++
		o, expr := p.Transformations[0].Options, p.Targets[0].Expr
		ones := strings.HasPrefix(expr, "group by")
		if o.ExcludeByName["Value"] != ones || o.RenameByName["Value"] == "" != ones {
			t.Errorf("%s: values hidden = %v, title %q; all are 1 = %v", p.Title, o.ExcludeByName["Value"], o.RenameByName["Value"], ones)
		}
		labels := regexp.MustCompile(`by \((.*?)\)`).FindStringSubmatch(expr)[1]
		for i, label := range strings.Split(labels, ", ") {
			if at, ok := o.IndexByName[label]; !ok || at != i {
				t.Errorf("%s: column %s is at %d, want %d", p.Title, label, at, i)
			}
		}
		linked := len(p.FieldConfig.Overrides) == 1 && strings.Contains(string(p.FieldConfig.Overrides[0]), "/d/sockwatch?var-host=${__value.raw}")
		if want := strings.Contains(labels, "host"); linked != want {
			t.Errorf("%s: host is a link = %v, want %v", p.Title, linked, want)
		}
	}
	if tables != 9 {
		t.Errorf("%d tables", tables)
	}
}
