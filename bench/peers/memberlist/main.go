// Command memberlist measures how updates spread through hashicorp/memberlist, so that aNode can be
// set beside it: N nodes in this process, each with its own sockets on 127.0.0.1 and memberlist's LAN
// defaults; updates are broadcast through a TransmitLimitedQueue and passed on by whoever hears of one
// for the first time, as Serf and Consul do.
//
// The last line on stdout is one JSON object; its keys are those of `Measures` in ../../src/propagation.
//
// What speaks for memberlist here: its nodes share one process, a delivery counts when the callback has
// it (aNode's counts when a subscriber has it), and what never arrives is not in its percentiles. What
// is left out: the push/pull of whole states every 30 s, which an application may use for repair.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
)

// Plan is what to measure.
type Plan struct {
	Nodes       int
	RatePerS    int
	Seconds     int
	Payload     int // bytes of an update
	Seed        int64
	IdleSeconds int
}

func main() {
	var plan Plan
	flag.IntVar(&plan.Nodes, "nodes", 8, "nodes")
	flag.IntVar(&plan.RatePerS, "rate", 10, "updates a second, at random nodes")
	flag.IntVar(&plan.Seconds, "seconds", 8, "how long")
	flag.IntVar(&plan.Payload, "payload", 128, "bytes of an update")
	flag.Int64Var(&plan.Seed, "seed", 1, "chooses the nodes that broadcast")
	flag.IntVar(&plan.IdleSeconds, "idle-seconds", 3, "how long the idle traffic is counted")
	flag.Parse()
	if plan.Nodes < 2 || plan.RatePerS < 1 || plan.Seconds < 1 || plan.Payload < headerBytes {
		fmt.Fprintf(os.Stderr, "error: at least 2 nodes, 1 update a second, 1 second, %d bytes\n", headerBytes)
		os.Exit(2)
	}
	measures, err := Run(plan)
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	line, err := json.Marshal(measures)
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	fmt.Println(string(line))
}
