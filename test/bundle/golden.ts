/** config.json of the typical image of runtime-config.test.ts: `runc spec` of runc 1.1.5, edited by hand. */
export const golden = {
  ociVersion: '1.0.2',
  process: {
    terminal: false,
    user: {
      uid: 1000,
      gid: 1000,
      additionalGids: [4],
    },
    args: ['/usr/bin/tini', '--', 'serve', '--port', '8080'],
    env: ['PATH=/usr/bin:/bin', 'LANG=C.UTF-8', 'HOME=/home/app'],
    cwd: '/srv/app',
    capabilities: {
      bounding: ['CAP_AUDIT_WRITE', 'CAP_KILL', 'CAP_NET_BIND_SERVICE'],
      effective: ['CAP_AUDIT_WRITE', 'CAP_KILL', 'CAP_NET_BIND_SERVICE'],
      permitted: ['CAP_AUDIT_WRITE', 'CAP_KILL', 'CAP_NET_BIND_SERVICE'],
      ambient: ['CAP_AUDIT_WRITE', 'CAP_KILL', 'CAP_NET_BIND_SERVICE'],
    },
    rlimits: [
      {
        type: 'RLIMIT_NOFILE',
        hard: 1024,
        soft: 1024,
      },
    ],
    noNewPrivileges: true,
  },
  root: {
    path: 'rootfs',
    readonly: true,
  },
  hostname: 'lamina',
  mounts: [
    {
      destination: '/proc',
      type: 'proc',
      source: 'proc',
    },
    {
      destination: '/dev',
      type: 'tmpfs',
      source: 'tmpfs',
      options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
    },
    {
      destination: '/dev/pts',
      type: 'devpts',
      source: 'devpts',
      options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'],
    },
    {
      destination: '/dev/shm',
      type: 'tmpfs',
      source: 'shm',
      options: ['nosuid', 'noexec', 'nodev', 'mode=1777', 'size=65536k'],
    },
    {
      destination: '/dev/mqueue',
      type: 'mqueue',
      source: 'mqueue',
      options: ['nosuid', 'noexec', 'nodev'],
    },
    {
      destination: '/sys',
      type: 'sysfs',
      source: 'sysfs',
      options: ['nosuid', 'noexec', 'nodev', 'ro'],
    },
    {
      destination: '/sys/fs/cgroup',
      type: 'cgroup',
      source: 'cgroup',
      options: ['nosuid', 'noexec', 'nodev', 'relatime', 'ro'],
    },
    {
      destination: '/var/cache/app',
      type: 'tmpfs',
      source: 'tmpfs',
      options: ['rw', 'nosuid', 'nodev', 'mode=0755', 'uid=1000', 'gid=1000'],
    },
  ],
  annotations: {
    'org.opencontainers.image.os': 'linux',
    'org.opencontainers.image.architecture': 'amd64',
    'org.opencontainers.image.created': '2024-05-06T07:08:09Z',
    'org.opencontainers.image.stopSignal': 'SIGQUIT',
    'org.opencontainers.image.exposedPorts': '8080/tcp',
    'org.example.team': 'files',
  },
  linux: {
    resources: {
      devices: [
        {
          allow: false,
          access: 'rwm',
        },
      ],
    },
    namespaces: [
      {
        type: 'pid',
      },
      {
        type: 'network',
      },
      {
        type: 'ipc',
      },
      {
        type: 'uts',
      },
      {
        type: 'mount',
      },
    ],
    maskedPaths: [
      '/proc/acpi',
      '/proc/asound',
      '/proc/kcore',
      '/proc/keys',
      '/proc/latency_stats',
      '/proc/timer_list',
      '/proc/timer_stats',
      '/proc/sched_debug',
      '/sys/firmware',
      '/proc/scsi',
    ],
    readonlyPaths: ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'],
  },
};
