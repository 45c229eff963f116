package migrator

// The named steps of the work, in the order of a move. Each stands before or
// after a commit, a send or an acknowledgement: the places where a crash could
// do harm.
const (
	stepLookup          = "provision.lookup"
	stepFreeCommitted   = "provision.free.committed"
	stepEnsureBefore    = "ensure.before"
	stepEnsureAfter     = "ensure.after"
	stepCreated         = "created.committed"
	stepPasswordBefore  = "password.before"
	stepPasswordAfter   = "password.after"
	stepFolderBefore    = "folder.before"
	stepFolderCreated   = "folder.created"
	stepFolderCommitted = "folder.committed"
	stepMatched         = "match.committed"
	stepIntentBefore    = "intent.before"
	stepIntentCommitted = "intent.committed"
	stepSentHalf        = "batch.sent.half"
	stepSent            = "batch.sent"
	stepAcked           = "batch.acked"
	stepLooked          = "settle.looked"
	stepSettleBefore    = "settle.before"
	stepSettled         = "settle.committed"
	stepAsideBefore     = "aside.before"
	stepAsideAfter      = "aside.after"
	stepCompared        = "compare.done"
	stepFlipBefore      = "flip.before"
	stepFlipped         = "flip.committed"
	stepCatchUp         = "catchup.begun"
	stepMoved           = "moved.committed"
	stepAliasesDecided  = "aliases.decided"
	stepAliasBefore     = "alias.before"
	stepAliasBegun      = "alias.begun"
	stepAliasAfter      = "alias.after"
	stepAliasCommitted  = "alias.committed"
	stepAliasRemoved    = "alias.removed"
	stepFinishBefore    = "finish.before"
	stepFinished        = "finish.committed"
	stepAfterBegun      = "after.begun"
	stepAfterEnded      = "after.ended"
	stepNameBefore      = "name.before"
	stepNameCommitted   = "name.committed"
	stepMirrorBefore    = "mirror.delete.before"
	stepMirrorDeleted   = "mirror.deleted"
	stepMirrorForgotten = "mirror.forgotten"
	stepRenameCommitted = "rename.committed"
	stepRenameDone      = "rename.done"
	stepRenameSettled   = "rename.settled"
	stepRemoveCommitted = "remove.committed"
	stepFolderRemoved   = "folder.removed"
	stepFlipClosing     = "flip.closing"
	stepFlipHeld        = "flip.held"
	stepFlipVerified    = "flip.verified"

	stepRollbackHeld          = "rollback.held"
	stepReturnFolderBefore    = "rollback.folder.before"
	stepReturnFolderCreated   = "rollback.folder.created"
	stepReturnIntentBefore    = "rollback.intent.before"
	stepReturnIntentCommitted = "rollback.intent.committed"
	stepReturned              = "rollback.sent"
	stepReturnLooked          = "rollback.looked"
	stepReturnSettleBefore    = "rollback.settle.before"
	stepReturnSettled         = "rollback.settle.committed"
	stepRollbackEndBefore     = "rollback.end.before"
	stepRolledBack            = "rollback.end.committed"
	stepRebaseBefore          = "rollback.rebase.before"
	stepRebased               = "rollback.rebase.committed"
)

// Steps lists the names that Options.Step may be called with in a move. One that
// meets no trouble passes all but password.*, match.committed, settle.looked
// and aside.*.
func Steps() []string {
	return []string{
		stepLookup, stepFreeCommitted, stepEnsureBefore, stepEnsureAfter, stepCreated,
		stepPasswordBefore, stepPasswordAfter,
		stepFolderBefore, stepFolderCreated, stepFolderCommitted, stepMatched,
		stepIntentBefore, stepIntentCommitted, stepSentHalf, stepSent, stepAcked,
		stepLooked, stepSettleBefore, stepSettled, stepAsideBefore, stepAsideAfter,
		stepCompared, stepFlipBefore, stepFlipped,
	}
}

// AliasSteps lists the names of the steps of a move in which an alias is found
// and created, the last one where one is taken away again.
func AliasSteps() []string {
	return []string{stepAliasesDecided, stepAliasBefore, stepAliasBegun, stepAliasAfter, stepAliasCommitted, stepAliasRemoved}
}

// LaterSteps lists the names of the steps that belong to what comes after the
// flip. A catch-up and a last pass that copy something pass the steps of a
// batch between them as well.
func LaterSteps() []string {
	return []string{stepCatchUp, stepMoved, stepFinishBefore, stepFinished}
}

// AfterSteps lists the names of the steps around the command after an account.
func AfterSteps() []string { return []string{stepAfterBegun, stepAfterEnded} }

// NameSteps lists the names of the steps at which an account becomes a login alias
// of another.
func NameSteps() []string { return []string{stepNameBefore, stepNameCommitted} }

// FlipSteps lists the names of the steps at which what an owner does on the source
// is carried over, and of the flip of an account that was parked there: those
// before the usual ones of a flip.
func FlipSteps() []string {
	return []string{stepMirrorBefore, stepMirrorDeleted, stepMirrorForgotten,
		stepRenameCommitted, stepRenameDone, stepRenameSettled,
		stepRemoveCommitted, stepFolderRemoved,
		stepFlipClosing, stepFlipHeld, stepFlipVerified}
}

// RollbackSteps lists the names of the steps at which an account is taken back to
// its source, in their order.
func RollbackSteps() []string {
	return []string{stepRollbackHeld, stepReturnFolderBefore, stepReturnFolderCreated,
		stepReturnIntentBefore, stepReturnIntentCommitted, stepReturned, stepReturnLooked,
		stepReturnSettleBefore, stepReturnSettled, stepRollbackEndBefore, stepRolledBack}
}

// RebaseSteps lists the names of the steps at which the ledger of an account that
// moves anew is rebased.
func RebaseSteps() []string { return []string{stepRebaseBefore, stepRebased} }

func (m *Migrator) step(name string) {
	if m.o.Step != nil {
		m.o.Step(name)
	}
}
