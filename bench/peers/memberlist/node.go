package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// An update begins with its number.
	headerBytes = 8
	// IPv4 and UDP headers, counted with every datagram, as aNode does.
	datagramHeaderBytes = 28
)

// epoch is where all times count from.
var epoch = time.Now()

// Node is one member and what it received. It is its own memberlist.Delegate.
type Node struct {
	list      *memberlist.Memberlist
	queue     *memberlist.TransmitLimitedQueue
	transport *countingTransport
	// Nanoseconds from epoch to the first copy of each update; 0: not yet.
	firstNs []atomic.Int64
	// All copies of updates, the needless ones too.
	copies atomic.Int64
}

// countingTransport counts what is sent in datagrams.
type countingTransport struct {
	*memberlist.NetTransport
	datagrams atomic.Int64
	bytes     atomic.Int64
}

func (t *countingTransport) count(b []byte) {
	t.datagrams.Add(1)
	t.bytes.Add(int64(len(b) + datagramHeaderBytes))
}

func (t *countingTransport) WriteTo(b []byte, addr string) (time.Time, error) {
	t.count(b)
	return t.NetTransport.WriteTo(b, addr)
}

func (t *countingTransport) WriteToAddress(b []byte, addr memberlist.Address) (time.Time, error) {
	t.count(b)
	return t.NetTransport.WriteToAddress(b, addr)
}

// StartNode starts a member on a free port of 127.0.0.1 with the LAN defaults.
func StartNode(name string, updates int) (*Node, error) {
	silent := log.New(io.Discard, "", 0)
	transport, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
		BindAddrs: []string{"127.0.0.1"}, BindPort: 0, Logger: silent,
	})
	if err != nil {
		return nil, err
	}
	node := &Node{
		transport: &countingTransport{NetTransport: transport},
		firstNs:   make([]atomic.Int64, updates),
	}
	config := memberlist.DefaultLANConfig()
	config.Name = name
	config.BindAddr = "127.0.0.1"
	config.BindPort = transport.GetAutoBindPort()
	config.AdvertiseAddr = "127.0.0.1"
	config.AdvertisePort = config.BindPort
	config.Transport = node.transport
	config.Delegate = node
	config.Logger = silent
	node.queue = &memberlist.TransmitLimitedQueue{
		NumNodes:       func() int { return node.list.NumMembers() },
		RetransmitMult: config.RetransmitMult,
	}
	node.list, err = memberlist.Create(config)
	return node, err
}

// Address is where others may join it.
func (n *Node) Address() string {
	self := n.list.LocalNode()
	return fmt.Sprintf("%s:%d", self.Addr, self.Port)
}

// Broadcast sends an update on its way from here.
func (n *Node) Broadcast(update []byte) {
	if n.isNew(update) {
		n.queue.QueueBroadcast(broadcast(update))
	}
}

// isNew notes when an update is here for the first time.
func (n *Node) isNew(update []byte) bool {
	number := binary.BigEndian.Uint64(update)
	sinceNs := time.Since(epoch).Nanoseconds()
	return number < uint64(len(n.firstNs)) && n.firstNs[number].CompareAndSwap(0, sinceNs)
}

// NotifyMsg takes a copy of an update.
func (n *Node) NotifyMsg(update []byte) {
	if len(update) < headerBytes {
		return
	}
	n.copies.Add(1)
	if n.isNew(update) {
		// memberlist uses the buffer again.
		n.queue.QueueBroadcast(broadcast(append([]byte(nil), update...)))
	}
}

// GetBroadcasts says what goes with the next packet.
func (n *Node) GetBroadcasts(overhead, limit int) [][]byte {
	return n.queue.GetBroadcasts(overhead, limit)
}

// NodeMeta is empty.
func (n *Node) NodeMeta(int) []byte { return nil }

// LocalState is empty: the push/pull of whole states is left out.
func (n *Node) LocalState(bool) []byte { return nil }

// MergeRemoteState has nothing to merge.
func (n *Node) MergeRemoteState([]byte, bool) {}

// broadcast is an update that no other replaces.
type broadcast []byte

func (b broadcast) Invalidates(memberlist.Broadcast) bool { return false }
func (b broadcast) Message() []byte                       { return b }
func (b broadcast) Finished()                             {}

// UniqueBroadcast spares the queue from asking.
func (b broadcast) UniqueBroadcast() {}
