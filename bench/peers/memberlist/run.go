package main

import (
	"encoding/binary"
	"fmt"
	"math/rand"
	"syscall"
	"time"
)

const (
	// Joining costs memberlist N² messages: at 128 nodes some 40 s of processor time.
	joinDeadline = 120 * time.Second
	// What members say of the joins must have died down before anything is counted: a node that has
	// nothing to tell sends two datagrams a second.
	quietDatagramsPerS = 4
	settleDeadline     = 30 * time.Second
	// An update's last transmissions are over long before.
	drain = 3 * time.Second
)

// traffic is what was sent, and what was computed, up to an instant.
type traffic struct {
	at               time.Time
	datagrams, bytes int64
	cpu              time.Duration
}

// Run measures once.
func Run(plan Plan) (*Measures, error) {
	updates := plan.RatePerS * plan.Seconds
	nodes, err := startAll(plan.Nodes, updates)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, node := range nodes {
			_ = node.list.Shutdown()
		}
	}()
	before := settle(nodes)
	time.Sleep(time.Duration(plan.IdleSeconds) * time.Second)
	idle := look(nodes)
	start := time.Now().Add(200 * time.Millisecond)
	origins, lateNs := publish(plan, nodes, updates, start)
	busy := look(nodes)
	time.Sleep(drain)
	after := look(nodes)

	measures := gather(plan, nodes, origins, start)
	measures.LateMs = percentiles(lateNs)
	idleS := idle.at.Sub(before.at).Seconds()
	loadS := after.at.Sub(idle.at).Seconds()
	count := float64(plan.Nodes)
	idleDatagramsPerS := float64(idle.datagrams-before.datagrams) / idleS
	idleBytesPerS := float64(idle.bytes-before.bytes) / idleS
	measures.IdleDatagrams = idleDatagramsPerS / count
	measures.IdleBytes = idleBytesPerS / count
	each := float64(updates) * count
	measures.Datagrams = (float64(after.datagrams-idle.datagrams) - idleDatagramsPerS*loadS) / each
	measures.Bytes = (float64(after.bytes-idle.bytes) - idleBytesPerS*loadS) / each
	measures.IdleCPU = 100 * (idle.cpu - before.cpu).Seconds() / idleS
	measures.BusyCPU = 100 * (busy.cpu - idle.cpu).Seconds() / busy.at.Sub(idle.at).Seconds()
	return measures, nil
}

// startAll starts the members, joins them, and waits until each sees all.
func startAll(count, updates int) ([]*Node, error) {
	nodes := make([]*Node, 0, count)
	deadline := time.Now().Add(joinDeadline)
	for i := range count {
		if time.Now().After(deadline) {
			return nodes, fmt.Errorf("%d of %d members joined after %v", i, count, joinDeadline)
		}
		node, err := StartNode(fmt.Sprintf("node-%d", i), updates)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			if _, err := node.list.Join([]string{nodes[0].Address()}); err != nil {
				return nil, err
			}
		}
		nodes = append(nodes, node)
	}
	for _, node := range nodes {
		for node.list.NumMembers() < count {
			if time.Now().After(deadline) {
				return nil, fmt.Errorf("%d of %d members seen after %v", node.list.NumMembers(), count, joinDeadline)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return nodes, nil
}

// settle waits until the members have nothing to tell each other, and looks.
func settle(nodes []*Node) traffic {
	before := look(nodes)
	deadline := time.Now().Add(settleDeadline)
	for {
		time.Sleep(time.Second)
		after := look(nodes)
		perS := float64(after.datagrams-before.datagrams) / after.at.Sub(before.at).Seconds()
		if perS < quietDatagramsPerS*float64(len(nodes)) || time.Now().After(deadline) {
			return after
		}
		before = after
	}
}

// publish broadcasts at a constant rate at random nodes; where, and how late each was.
func publish(plan Plan, nodes []*Node, updates int, start time.Time) (origins []int, lateNs []int64) {
	random := rand.New(rand.NewSource(plan.Seed))
	for number := range updates {
		due := start.Add(dueAt(plan, number))
		time.Sleep(time.Until(due))
		update := make([]byte, plan.Payload)
		for i := range update {
			update[i] = 'x'
		}
		binary.BigEndian.PutUint64(update, uint64(number))
		origin := random.Intn(len(nodes))
		lateNs = append(lateNs, time.Since(due).Nanoseconds())
		nodes[origin].Broadcast(update)
		origins = append(origins, origin)
	}
	return origins, lateNs
}

// dueAt is when an update is due, from the start.
func dueAt(plan Plan, number int) time.Duration {
	return time.Duration(number) * time.Second / time.Duration(plan.RatePerS)
}

// gather reads what the nodes received. Times count from when an update was due.
func gather(plan Plan, nodes []*Node, origins []int, start time.Time) *Measures {
	var one, all []int64
	measures := &Measures{
		System: "memberlist", Nodes: plan.Nodes, Records: len(origins),
		Expected: int64(len(origins)) * int64(plan.Nodes-1),
	}
	for number, origin := range origins {
		due := start.Add(dueAt(plan, number)).Sub(epoch).Nanoseconds()
		last, missing := int64(0), int64(0)
		for i, node := range nodes {
			if i == origin {
				continue
			}
			first := node.firstNs[number].Load()
			if first == 0 {
				missing++
				continue
			}
			one = append(one, first-due)
			last = max(last, first-due)
		}
		measures.Missing += missing
		if missing > 0 {
			measures.Partial++
		}
		all = append(all, last)
	}
	copies := int64(0)
	for _, node := range nodes {
		copies += node.copies.Load()
	}
	measures.Copies = float64(copies) / float64(measures.Expected)
	measures.OneMs = percentiles(one)
	measures.AllMs = percentiles(all)
	return measures
}

// look reads the counters.
func look(nodes []*Node) traffic {
	seen := traffic{at: time.Now()}
	for _, node := range nodes {
		seen.datagrams += node.transport.datagrams.Load()
		seen.bytes += node.transport.bytes.Load()
	}
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err == nil {
		seen.cpu = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	return seen
}
