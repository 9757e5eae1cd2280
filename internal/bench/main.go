// Bench compares a Stream with crypto/tls alone, and prints a table of ratios. Both carry the same bytes over the same kind
// of TCP loopback connection in the same process, in turns, so that a machine that is faster or slower for a while is so for
// both; each figure is the median over the turns.
//
//	go run ./internal/bench            # all of it, about two minutes
//	go run ./internal/bench -run bulk  # only what matches
package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"slices"
	"time"
)

var (
	rounds = flag.Int("rounds", 9, "how many turns each side has")
	budget = flag.Duration("time", 250*time.Millisecond, "how long one turn takes, about")
	match  = flag.String("run", "", "measure only what matches this regular expression")
)

// figure is one measure of one turn; less is better, unless higher.
type figure struct {
	name   string
	value  float64
	format string
	higher bool
}

// measure is what is compared: it runs one turn of one side.
type measure struct {
	name string
	turn func(side side, budget time.Duration) ([]figure, error)
}

// side makes connections of one kind.
type side interface {
	name() string
	pair(mutual, resumable bool) (client, server conn, err error)
}

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	pattern, err := regexp.Compile(*match)
	if err != nil {
		return err
	}
	pki, err := newPKI()
	if err != nil {
		return err
	}
	fmt.Printf("%s, %s/%s, %d processors, %d turns of %v each\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), *rounds, *budget)
	stream := newStreamSide(pki)
	if err := table(pattern, measures(), newRawSide(pki), stream); err != nil {
		return err
	}
	for _, f := range floors() {
		if pattern.MatchString(f.name) {
			if err := floor(f); err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
		}
	}
	for _, staple := range []bool{false, true} {
		if err := table(pattern, checks(), stream, newCheckingSide(pki, staple)); err != nil {
			return err
		}
	}
	return nil
}

// table compares two sides by the measures that match.
func table(pattern *regexp.Regexp, measures []measure, sides ...side) error {
	measures = slices.DeleteFunc(measures, func(m measure) bool { return !pattern.MatchString(m.name) })
	if len(measures) == 0 {
		return nil
	}
	fmt.Printf("\n| what | %s | %s | ratio | range |\n|---|---|---|---|---|\n", sides[0].name(), sides[1].name())
	for _, m := range measures {
		if err := compare(m, sides); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return nil
}

// compare prints a row for each figure of a measure.
func compare(m measure, sides []side) error {
	values := map[string][2][]float64{}
	var order []figure
	for round := range *rounds + 1 {
		// Whoever begins may have it easier or harder: the sides take turns at that as well.
		first := round % 2
		for i := range sides {
			which := (first + i) % 2
			runtime.GC()
			figures, err := m.turn(sides[which], *budget)
			if err != nil {
				return fmt.Errorf("%s: %w", sides[which].name(), err)
			}
			if round == 0 {
				if which == 0 {
					order = figures
				}
				continue // a warm-up
			}
			for _, f := range figures {
				v := values[f.name]
				v[which] = append(v[which], f.value)
				values[f.name] = v
			}
		}
	}
	for _, f := range order {
		v := values[f.name]
		var ratios []float64
		for i := range v[0] {
			ratios = append(ratios, v[1][i]/v[0][i])
		}
		mark := ""
		if f.higher {
			mark = " (more is better)"
		}
		fmt.Printf("| %s: %s%s | "+f.format+" | "+f.format+" | **%.2f** | %.2f to %.2f |\n",
			m.name, f.name, mark, median(v[0]), median(v[1]), median(ratios), slices.Min(ratios), slices.Max(ratios))
	}
	return nil
}

// floorMeasure is something that no TLS over TCP can be faster than.
type floorMeasure struct {
	name string
	turn func(budget time.Duration) ([]figure, error)
}

func floor(f floorMeasure) error {
	values := map[string][]float64{}
	var order []figure
	for range *rounds {
		figures, err := f.turn(*budget)
		if err != nil {
			return err
		}
		order = figures
		for _, x := range figures {
			values[x.name] = append(values[x.name], x.value)
		}
	}
	for _, x := range order {
		fmt.Printf("| %s: %s | "+x.format+" | | | |\n", f.name, x.name, median(values[x.name]))
	}
	return nil
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if len(s) == 0 {
		return 0
	}
	return (s[len(s)/2] + s[(len(s)-1)/2]) / 2
}
