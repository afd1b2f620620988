// Run by mongodb-fsynclock in mongosh. MONGODB_TASK: `quiesce` or `unlock`.
const fs = require('fs');

const file = process.env.MONGODB_URI_FILE;
const uri = file ? fs.readFileSync(file, 'utf8').trim() : 'mongodb://127.0.0.1/';
const limit = Number(process.env.STILLPOINT_QUIESCE_LIMIT || 600) * 1000;

// Whatever is told, the end of the input, SIGTERM or the limit: each of them means to release.
const told = new Promise((resolve) => {
    process.once('SIGTERM', resolve);
    if (process.env.MONGODB_TASK === 'quiesce') {
        process.stdin.once('data', resolve);
        process.stdin.once('end', resolve);
        setTimeout(resolve, limit);
    }
});

async function unlock(admin) {
    const answer = await admin.runCommand({ fsyncUnlock: 1 });
    if (!answer.ok) {
        throw new Error(`fsyncUnlock: ${answer.errmsg}`);
    }
    return answer.lockCount;
}

async function main() {
    const admin = (await connect(uri)).getSiblingDB('admin');
    if (process.env.MONGODB_TASK === 'unlock') {
        const state = await admin.runCommand({ currentOp: 1 });
        if (state.fsyncLock) {
            print(`note it was locked; ${await unlock(admin)} locks are left`);
        }
        return;
    }
    const answer = await admin.runCommand({ fsync: 1, lock: true });
    if (!answer.ok) {
        throw new Error(`fsyncLock: ${answer.errmsg}`);
    }
    try {
        print('ready');
        await told;
    } finally {
        await unlock(admin);
    }
}

try {
    await main();
    process.exit(0);
} catch (e) {
    print(`failed ${String(e.message).replace(/\n/g, ' ')}`);
    process.exit(1);
}
